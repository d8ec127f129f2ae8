"""Weights from safetensors files, with a LoRA adapter folded in."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from workers.embedded.folder import ADAPTER_CONFIG, ExpertFolder, read_json

_ADAPTER_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


class UnsupportedAdapter(ValueError):
    """An adapter with more than low-rank additions to linear layers."""


def load_weights(folder: ExpertFolder) -> dict[str, Tensor]:
    """Every tensor of the expert by Hugging Face's name, as stored; with an adapter, its additions in float32."""
    weights: dict[str, Tensor] = {}
    files = sorted(folder.base.glob("model*.safetensors"))
    if not files:
        msg = f"{folder.base.name} holds no model*.safetensors"
        raise FileNotFoundError(msg)
    for file in files:
        weights |= load_file(file)
    if folder.adapter is not None:
        _fold_in(weights, folder.adapter)
    return weights


def _fold_in(weights: dict[str, Tensor], adapter: Path) -> None:
    """``W + scale · B A`` (Hu et al., arXiv 2106.09685): an adapter this small is cheaper merged than applied."""
    config = read_json(adapter / ADAPTER_CONFIG)
    for feature in ("use_dora", "fan_in_fan_out", "alpha_pattern", "modules_to_save", "lora_bias"):
        if config.get(feature):
            msg = f"{adapter.name} uses {feature}, which cannot run in process; merge it into its base model, or serve it with vLLM"
            raise UnsupportedAdapter(msg)
    tensors = load_file(adapter / "adapter_model.safetensors")
    stems = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    _require_nothing_else(tensors, {stem + suffix for stem in stems for suffix in (_A, _B)}, weights, adapter.name)
    for stem in stems:
        a, b = tensors[stem + _A], tensors[stem + _B]
        rank = a.shape[0]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        target = stem.removeprefix(_ADAPTER_PREFIX) + ".weight"
        if target not in weights or weights[target].shape != (b.shape[0], a.shape[1]):
            msg = f"{adapter.name} does not fit its base model: {target} is not there or has another shape"
            raise UnsupportedAdapter(msg)
        weights[target] = weights[target].float() + scale * (b.float() @ a.float())


def _require_nothing_else(tensors: dict[str, Tensor], used: set[str], base: dict[str, Tensor], adapter: str) -> None:
    """Raise ``UnsupportedAdapter`` for a tensor that would be left out: the expert would answer, but not as it was trained.

    PEFT also stores layers of the base model itself, when their size was changed or it cannot tell. Unchanged they may go.
    """
    for name in sorted(tensors.keys() - used):
        original = base.get(name.removeprefix(_ADAPTER_PREFIX).replace(".base_layer.", "."))
        if original is None or not torch.equal(tensors[name].float(), original.float()):
            msg = (
                f"{adapter} holds {name}, which is more than low-rank additions to linear layers and cannot run in process; "
                "merge it into its base model, or serve it with vLLM"
            )
            raise UnsupportedAdapter(msg)
