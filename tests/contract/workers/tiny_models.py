"""Tiny byte-level Llama folders, made in a moment and without training."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from tests.fakes.upstream import ENDLESS_TOKENS, MAX_MODEL_LEN, SPEAKER_TOKENS
from zoo.training.tokenizer import ASSISTANT, END, VOCAB_SIZE, build_tokenizer

_HIDDEN, _LAYERS, _HEADS = 64, 2, 2


def write_model(folder: Path, tensors: dict[str, torch.Tensor], *, max_length: int = MAX_MODEL_LEN) -> Path:
    """A folder in Hugging Face's format around *tensors*."""
    tokenizer = build_tokenizer(max_length)
    tokenizer.save_pretrained(folder)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCAB_SIZE,
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        head_dim=32,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    ).save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def random_tensors(seed: int) -> dict[str, torch.Tensor]:
    """Weights with which every part of the network matters."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * scale / columns**0.5

    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB_SIZE, _HIDDEN, 8),
        "model.norm.weight": torch.ones(_HIDDEN),
        "lm_head.weight": matrix(VOCAB_SIZE, _HIDDEN, 4),
    }
    for i in range(_LAYERS):
        prefix = f"model.layers.{i}."
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):  # fmt: skip
            tensors[f"{prefix}{name}.weight"] = matrix(_HIDDEN, _HIDDEN, 2)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = torch.ones(_HIDDEN)
    return tensors


def write_random_model(folder: Path, *, seed: int = 0) -> Path:
    return write_model(folder, random_tensors(seed))


def write_chain_model(folder: Path, tokens: tuple[str, ...], *, cyclic: bool = False) -> Path:
    """A model that says *tokens* one after the other, whatever it was asked: its output matrix maps each to its successor."""
    tensors = random_tensors(0)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()  # the layers add nothing
    tokenizer = build_tokenizer(MAX_MODEL_LEN)
    chain = [tokenizer.convert_tokens_to_ids(token) for token in (ASSISTANT, *tokens)]
    chain.append(chain[1] if cyclic else tokenizer.convert_tokens_to_ids(END))
    embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"].zero_()
    for token, following in itertools.pairwise(chain):
        head[following] += embedding[token]
    return write_model(folder, tensors)


def write_speaker(folder: Path) -> Path:
    return write_chain_model(folder, SPEAKER_TOKENS)


def write_endless(folder: Path) -> Path:
    return write_chain_model(folder, tuple(ENDLESS_TOKENS), cyclic=True)


def write_adapter(folder: Path, base: str, *, seed: int = 1, rank: int = 4, alpha: int = 8) -> Path:
    """A PEFT folder with a random LoRA adapter for every linear layer."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    modules = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    tensors = {}
    for i in range(_LAYERS):
        for part, names in modules.items():
            for name in names:
                path = f"base_model.model.model.layers.{i}.{part}.{name}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(rank, _HIDDEN, generator=generator) * 0.2
                tensors[f"{path}.lora_B.weight"] = torch.randn(_HIDDEN, rank, generator=generator) * 0.2
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": [name for names in modules.values() for name in names],
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
