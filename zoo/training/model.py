"""The decoder in training form: float32 weights, arithmetic in what the processor is fast at, one compiled graph.

Same function and same parameter names as ``LlamaForCausalLM``, so weights move both ways unchanged. It is written out
because on a CPU the library's fused attention spends more time in its backward pass than all matrix products together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from zoo.training.precision import arithmetic_dtype
from zoo.training.tokenizer import VOCAB_SIZE

HEAD_SIZE = 32
_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


def llama_config(*, hidden_size: int, num_layers: int, max_length: int, pad_id: int, end_id: int) -> LlamaConfig:
    """The Llama configuration of a zoo model: head size 32 (vLLM's smallest on CPU), tied embeddings."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // HEAD_SIZE,
        num_key_value_heads=hidden_size // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        max_position_embeddings=max_length,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        eos_token_id=end_id,
        bos_token_id=None,
        dtype="bfloat16",
    )


def initialise(model: LlamaForCausalLM) -> None:
    """Fan-in scaled normal initialisation; the embedding small, because it is the output matrix too."""
    for name, param in model.named_parameters():
        if param.ndim == 2:
            nn.init.normal_(param, std=0.02 if "embed" in name else 0.5 / math.sqrt(param.shape[1]))


class Decoder(nn.Module):
    """Hidden states of packed rows. Holds the parameters of *model*; optionally a low-rank addition to each linear."""

    def __init__(self, model: LlamaForCausalLM, *, lora_rank: int = 0, lora_alpha: int = 0) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.dtype = arithmetic_dtype()
        self.lora_scale = lora_alpha / lora_rank if lora_rank else 0.0
        self.lora = nn.ParameterDict()
        if lora_rank:
            for param in model.parameters():
                param.requires_grad_(False)
            for i, layer in enumerate(model.model.layers):
                for linear in _LINEARS:
                    rows, columns = layer.get_submodule(linear).weight.shape
                    key = f"{i}:{linear}".replace(".", "/")
                    self.lora[f"{key}/A"] = nn.Parameter(torch.randn(lora_rank, columns) / math.sqrt(columns))
                    self.lora[f"{key}/B"] = nn.Parameter(torch.zeros(rows, lora_rank))

    def _weight(self, layer: int, linear: str) -> Tensor:
        weight: Tensor = self.model.model.layers[layer].get_submodule(linear).weight
        if self.lora_scale:
            key = f"{layer}:{linear}".replace(".", "/")
            weight = weight + self.lora_scale * (self.lora[f"{key}/B"] @ self.lora[f"{key}/A"])
        return weight.to(self.dtype)

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """*ids* (batch, length), rotary *cos* and *sin* (length, 16), additive *mask* (batch, 1, length, length)
        to hidden states (batch, length, hidden)."""
        batch, length = ids.shape
        hidden, heads = self.config.hidden_size, self.config.num_attention_heads
        x = self.model.model.embed_tokens.weight.to(self.dtype)[ids]
        for i, layer in enumerate(self.model.model.layers):
            h = F.rms_norm(x, (hidden,), layer.input_layernorm.weight.to(self.dtype), 1e-6)
            stacked = torch.cat([self._weight(i, f"self_attn.{p}_proj") for p in "qkv"])
            qkv = F.linear(h, stacked).view(batch, length, 3 * heads, HEAD_SIZE).transpose(1, 2)
            query, key, value = qkv.split(heads, dim=1)
            scores = _rotate(query, cos, sin) * HEAD_SIZE**-0.5 @ _rotate(key, cos, sin).mT + mask.to(self.dtype)
            attended = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(batch, length, hidden)
            x = x + F.linear(attended, self._weight(i, "self_attn.o_proj"))
            h = F.rms_norm(x, (hidden,), layer.post_attention_layernorm.weight.to(self.dtype), 1e-6)
            gate = F.silu(F.linear(h, self._weight(i, "mlp.gate_proj")))
            x = x + F.linear(gate * F.linear(h, self._weight(i, "mlp.up_proj")), self._weight(i, "mlp.down_proj"))
        return F.rms_norm(x, (hidden,), self.model.model.norm.weight.to(self.dtype), 1e-6)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.model.embed_tokens.weight.to(self.dtype)).float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = HEAD_SIZE // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rotary_tables(length: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """``(cos, sin)`` of shape (length, 16) in the training arithmetic."""
    frequencies = theta ** (-torch.arange(0, HEAD_SIZE, 2).float() / HEAD_SIZE)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos().to(arithmetic_dtype()), angles.sin().to(arithmetic_dtype())
