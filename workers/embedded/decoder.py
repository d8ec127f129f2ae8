"""The forward pass, written out; docs/adr/0008 says why.

Same function as transformers' Llama classes (a test compares them). A step of one short sequence is nearly all overhead: this one
makes fewer calls (projections joined, one rotation for queries and keys, no cache objects) and takes less than half of the
library's time. And a step advances sequences of different lengths together, which is what batching needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.embedded.cache import KeyValueCache
from workers.embedded.shape import DecoderShape

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""Layer number, queries (n, heads, size), keys and values (n, 2, kv heads, size) to attended values (n, heads * size)."""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Decoder:
    """A decoder with its weights. Not thread-safe; run it in ``torch.inference_mode``."""

    def __init__(self, shape: DecoderShape, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        taken = {name: tensor.to(dtype) for name, tensor in weights.items()}
        self._layers = [_layer(taken, f"model.layers.{i}.") for i in range(shape.num_layers)]
        self._embedding = taken["model.embed_tokens.weight"]
        self._norm = taken["model.norm.weight"]
        self._head = self._embedding if shape.tied else taken["lm_head.weight"]
        self._cos, self._sin = shape.cos.to(dtype), shape.sin.to(dtype)
        self._gqa = shape.num_kv_heads != shape.num_heads

    def new_cache(self) -> KeyValueCache:
        return KeyValueCache(self.shape, self.dtype)

    def prefill(self, cache: KeyValueCache, first_row: int, prompts: list[list[int]]) -> Tensor:
        """Read *prompts* into the rows from *first_row* on; logits (n, vocabulary) of what comes after each."""
        num, length = len(prompts), max(map(len, prompts))
        # Padded on the right: a padded position sees only itself and what is before it, nobody reads its result, and the
        # answer's tokens overwrite it in the cache.
        tokens = torch.tensor([prompt + [0] * (length - len(prompt)) for prompt in prompts])
        last = torch.tensor([i * length + len(prompt) - 1 for i, prompt in enumerate(prompts)])
        shape = self.shape

        def attend(i: int, queries: Tensor, kv: Tensor) -> Tensor:
            kv = kv.view(num, length, 2, shape.num_kv_heads, shape.head_size).permute(2, 0, 3, 1, 4)
            cache.layers[i][first_row : first_row + num, :, :, :length] = kv.transpose(0, 1)
            queries = queries.view(num, length, shape.num_heads, shape.head_size).transpose(1, 2)
            attended = F.scaled_dot_product_attention(queries, kv[0], kv[1], is_causal=True, enable_gqa=self._gqa)
            return attended.transpose(1, 2).reshape(num * length, -1)

        positions = torch.arange(length).repeat(num)
        return self._forward(tokens.flatten(), positions, attend, last)

    def step(self, cache: KeyValueCache, tokens: list[int], positions: list[int]) -> Tensor:
        """One token more for rows 0 … n-1, each at its own position; logits (n, vocabulary)."""
        num, longest = len(tokens), max(positions) + 1
        at = torch.tensor(positions)
        rows = torch.arange(num)
        mask = None
        if min(positions) + 1 < longest:
            hidden = torch.arange(longest) > at[:, None]
            mask = torch.zeros(num, 1, 1, longest, dtype=self.dtype).masked_fill_(hidden[:, None, None], float("-inf"))

        def attend(i: int, queries: Tensor, kv: Tensor) -> Tensor:
            layer = cache.layers[i]
            if num == 1:
                layer[0, :, :, longest - 1] = kv[0]
            else:
                layer[rows, :, :, at] = kv
            seen = layer[:num, :, :, :longest]
            attended = F.scaled_dot_product_attention(queries.unsqueeze(2), seen[:, 0], seen[:, 1], attn_mask=mask, enable_gqa=self._gqa)
            return attended.reshape(num, -1)

        return self._forward(torch.tensor(tokens), at, attend, None)

    def _forward(self, tokens: Tensor, positions: Tensor, attend: Attend, kept: Tensor | None) -> Tensor:
        shape, eps = self.shape, self.shape.rms_norm_eps
        num, heads, kv_heads, size = len(tokens), shape.num_heads, shape.num_kv_heads, shape.head_size
        width = (shape.hidden_size,)
        x = self._embedding[tokens]
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        for i, layer in enumerate(self._layers):
            qkv = F.linear(F.rms_norm(x, width, layer.norm, eps), layer.qkv, layer.qkv_bias).view(num, heads + 2 * kv_heads, size)
            if layer.query_norm is not None:
                qkv[:, :heads] = F.rms_norm(qkv[:, :heads], (size,), layer.query_norm, eps)
                qkv[:, heads:-kv_heads] = F.rms_norm(qkv[:, heads:-kv_heads], (size,), layer.key_norm, eps)
            turned = qkv[:, :-kv_heads]
            qkv[:, :-kv_heads] = torch.addcmul(turned * cos, turned.roll(size // 2, -1), sin)
            kv = qkv[:, heads:].view(num, 2, kv_heads, size)
            x = x + F.linear(attend(i, qkv[:, :heads], kv), layer.out, layer.out_bias)
            gate, up = F.linear(F.rms_norm(x, width, layer.mlp_norm, eps), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate).mul_(up), layer.down)
        if kept is not None:
            x = x[kept]
        return F.linear(F.rms_norm(x, width, self._norm, eps), self._head).float()


def _layer(weights: dict[str, Tensor], prefix: str) -> _Layer:
    def joined(kind: str, *names: str) -> Tensor | None:
        parts = [weights.pop(f"{prefix}{name}.{kind}", None) for name in names]
        present = [part for part in parts if part is not None]
        return torch.cat(present) if len(present) == len(parts) else None

    def required(*names: str) -> Tensor:
        if (tensor := joined("weight", *names)) is None:
            msg = f"the weights lack {prefix}{names[0]}.weight"
            raise KeyError(msg)
        return tensor

    return _Layer(
        norm=required("input_layernorm"),
        qkv=required("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        qkv_bias=joined("bias", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        query_norm=joined("weight", "self_attn.q_norm"),
        key_norm=joined("weight", "self_attn.k_norm"),
        out=required("self_attn.o_proj"),
        out_bias=joined("bias", "self_attn.o_proj"),
        mlp_norm=required("post_attention_layernorm"),
        gate_up=required("mlp.gate_proj", "mlp.up_proj"),
        down=required("mlp.down_proj"),
    )
