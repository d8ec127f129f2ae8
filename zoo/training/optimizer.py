"""Muon for the hidden matrices, AdamW for the rest.

Muon (Jordan et al., 2024) replaces a matrix's momentum by its nearest orthogonal matrix, found with a Newton-Schulz
iteration. On these models it needs about half the steps of AdamW for the same accuracy.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from zoo.training.precision import arithmetic_dtype


def _orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices of *batch* (n, rows, columns), approximately."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = batch.size(1) > batch.size(2)
    x = (batch.mT if tall else batch).to(arithmetic_dtype())
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Muon over 2-D parameters; matrices of one shape are orthogonalised together."""

    def __init__(self, params: list[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - the base class's signature
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for param in group["params"]:
                by_shape[param.shape].append(param)
            for shape, params in by_shape.items():
                updates = []
                for param in params:
                    if param.grad is None:
                        raise RuntimeError("a parameter has no gradient; call backward() before step()")
                    buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
                    buffer.lerp_(param.grad, 1 - group["momentum"])
                    updates.append(param.grad.lerp(buffer, group["momentum"]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for param, update in zip(params, _orthogonalise(torch.stack(updates)), strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update, alpha=-scale)


def build_optimizers(model: nn.Module, *, muon_lr: float, adamw_lr: float) -> list[torch.optim.Optimizer]:
    """Optimizers that together cover every trainable parameter of *model* once."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trainable.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in trainable.values() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [Muon(matrices, lr=muon_lr)]
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0))
    return optimizers
