"""The decoder computes what transformers and PEFT compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.contract.workers.tiny_models import write_adapter, write_random_model
from workers.embedded.decoder import Decoder
from workers.embedded.folder import ExpertFolder
from workers.embedded.shape import UnsupportedArchitecture, load_shape
from workers.embedded.weights import UnsupportedAdapter, load_weights

SIZES: dict[str, Any] = {
    "vocab_size": 288, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9], [4] * 11, [250]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def decoder_of(folder: ExpertFolder) -> Decoder:
    return Decoder(load_shape(folder.base), load_weights(folder), torch.float32)


def assert_equal_logits(decoder: Decoder, model: PreTrainedModel, *, steps: int = 6) -> None:
    """Prompts of different lengths, read together, and some steps on."""
    with torch.inference_mode():
        cache, prompts = decoder.new_cache(), [list(prompt) for prompt in PROMPTS]
        cache.reserve(len(prompts), 16)
        logits = decoder.prefill(cache, 0, prompts)
        for _ in range(steps):
            expected = torch.stack([model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts])
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            tokens = logits.argmax(-1).tolist()
            cache.reserve(len(prompts), max(map(len, prompts)) + 1)
            logits = decoder.step(cache, tokens, [len(prompt) for prompt in prompts])
            prompts = [[*prompt, token] for prompt, token in zip(prompts, tokens, strict=True)]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LlamaConfig(**SIZES, head_dim=32), LlamaForCausalLM),
        (LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True, rope_scaling=LLAMA3), LlamaForCausalLM),
        (MistralConfig(**SIZES, sliding_window=64), MistralForCausalLM),
        (Qwen2Config(**SIZES), Qwen2ForCausalLM),
        (Qwen3Config(**SIZES, head_dim=32), Qwen3ForCausalLM),
    ],
    ids=["llama", "llama3-tied-biased", "mistral", "qwen2", "qwen3"],
)
def test_logits_are_those_of_transformers(tmp_path: Path, config: Any, kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.ndim == 2 else 0.5, std=0.2)
    model.save_pretrained(tmp_path)

    assert_equal_logits(decoder_of(ExpertFolder(tmp_path)), model)


def test_a_window_bounds_the_context(tmp_path: Path) -> None:
    MistralConfig(**SIZES, sliding_window=64).save_pretrained(tmp_path)

    assert load_shape(tmp_path).max_length == 64


def test_an_adapter_is_merged_as_peft_applies_it(tmp_path: Path) -> None:
    from peft import PeftModel

    base = write_random_model(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", "base")
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter).eval()

    assert_equal_logits(decoder_of(ExpertFolder(base, adapter)), model)


def test_an_adapter_beyond_plain_lora_is_refused(tmp_path: Path) -> None:
    base = write_random_model(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", "base")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 4, "use_dora": true'))

    with pytest.raises(UnsupportedAdapter, match="use_dora"):
        load_weights(ExpertFolder(base, adapter))


def test_another_architecture_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')

    with pytest.raises(UnsupportedArchitecture, match="serve it with vLLM"):
        load_shape(tmp_path)


def test_rows_move_and_grow_without_losing_what_they_hold(tmp_path: Path) -> None:
    decoder = decoder_of(ExpertFolder(write_random_model(tmp_path / "m")))
    with torch.inference_mode():
        cache = decoder.new_cache()
        cache.reserve(2, 8)
        decoder.prefill(cache, 0, [[1, 2, 3], [4, 5, 6, 7]])
        alone = decoder.new_cache()
        alone.reserve(1, 8)
        decoder.prefill(alone, 0, [[4, 5, 6, 7]])
        cache.move(1, 0, 4)
        cache.reserve(5, 200)

        torch.testing.assert_close(decoder.step(cache, [9], [4]), decoder.step(alone, [9], [4]))
        assert (cache.num_rows, cache.length) == (8, 256)
        cache.clear()
        assert cache.num_bytes == 0
