"""Weights on disk: Hugging Face folders for whole models, PEFT folders for LoRA adapters."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from zoo.training.model import Decoder


def empty_model(config: LlamaConfig) -> LlamaForCausalLM:
    """A float32 model with the shape of *config*."""
    return LlamaForCausalLM(config).float()


def load_float32(folder: Path) -> LlamaForCausalLM:
    """The model in *folder*, in float32 for further training."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def load_served(weights: Path, name: str) -> LlamaForCausalLM:
    """Expert *name* as it is served, in float32: a whole model, or its base with the adapter folded in."""
    adapter = weights / name / "adapter_config.json"
    if not adapter.exists():
        return load_float32(weights / name).eval()
    config = json.loads(adapter.read_text())
    model = load_float32(weights / config["base_model_name_or_path"])
    tensors = load_file(weights / name / "adapter_model.safetensors")
    state = model.state_dict()
    for key, b in tensors.items():
        if key.endswith("lora_B.weight"):
            a = tensors[key.replace("lora_B", "lora_A")].float()
            target = key.removeprefix("base_model.model.").removesuffix(".lora_B.weight") + ".weight"
            state[target] += config["lora_alpha"] / config["r"] * (b.float() @ a)
    model.load_state_dict(state)
    return model.eval()


def save(decoder: Decoder, tokenizer: PreTrainedTokenizerFast, folder: Path, *, base: str | None = None) -> None:
    """Write *decoder* to *folder* in bfloat16: a whole model, or only its adapter when *base* names what it sits on."""
    folder.mkdir(parents=True, exist_ok=True)
    if base is not None:
        _save_adapter(decoder, folder, base)
        return
    model = LlamaForCausalLM(decoder.config).bfloat16()
    model.load_state_dict({k: v.bfloat16() for k, v in decoder.model.state_dict().items()})
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner only
    tokenizer.save_pretrained(folder)


def _save_adapter(decoder: Decoder, folder: Path, base: str) -> None:
    tensors = {}
    for key, value in decoder.lora.items():
        layer, linear = key.split(":", 1)
        linear, side = linear.rsplit("/", 1)
        path = f"base_model.model.model.layers.{layer}.{linear.replace('/', '.')}.lora_{side}.weight"
        tensors[path] = value.detach().bfloat16().contiguous()
    rank = next(value.shape[0] for key, value in decoder.lora.items() if key.endswith("/A"))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": round(decoder.lora_scale * rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
