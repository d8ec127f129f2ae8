"""The architectures that the embedded decoder runs: Llama and those that differ from it only in details."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from workers.embedded.folder import read_json

# Named one by one: transformers' Auto classes import scikit-learn and 190 MB more to find them.
_FAMILY: dict[str, type[PretrainedConfig]] = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Position encodings whose frequencies do not depend on the length of the input."""


class UnsupportedArchitecture(ValueError):
    """A model that this engine cannot run; the message says what can."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes and details of one decoder."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_length: int
    rms_norm_eps: float
    tied: bool
    """Whether the output matrix is the embedding."""
    cos: Tensor
    sin: Tensor
    """Rotary tables (max_length, head_size), float32; the first half of *sin* negated, for a rotation by rolling."""
    end_ids: frozenset[int]
    """Tokens that end an answer."""


def load_shape(folder: Path) -> DecoderShape:
    """The shape that ``config.json`` in *folder* describes. Raises ``UnsupportedArchitecture``."""
    stored = read_json(folder / "config.json")
    family = _FAMILY.get(stored.get("model_type", ""))
    scaling = stored.get("rope_scaling") or {}
    rope = scaling.get("rope_type", scaling.get("type", "default"))
    config: Any = family.from_dict(stored) if family is not None else None
    if config is None or config.hidden_act != "silu" or rope not in _STATIC_ROPE:
        msg = (
            f"a {stored.get('model_type')!r} model cannot run in process (that is for: {', '.join(_FAMILY)}); "
            "serve it with vLLM and register it with backend 'openai'"
        )
        raise UnsupportedArchitecture(msg)
    max_length = config.max_position_embeddings
    if getattr(config, "use_sliding_window", True) and (window := getattr(config, "sliding_window", None)):
        max_length = min(max_length, window)  # up to here a window changes nothing
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cos, sin = _rotary_tables(config, rope, max_length)
    ends = config.eos_token_id
    return DecoderShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_size=head_size,
        max_length=max_length,
        rms_norm_eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
        cos=cos,
        sin=sin,
        end_ids=frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends]),
    )


def _rotary_tables(config: Any, rope: str, length: int) -> tuple[Tensor, Tensor]:
    frequencies, scaling = ROPE_INIT_FUNCTIONS[rope](config, torch.device("cpu"))
    angles = torch.outer(torch.arange(length).float(), frequencies.float())
    cos, sin = angles.cos() * scaling, angles.sin() * scaling
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
