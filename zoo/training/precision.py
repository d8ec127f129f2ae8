"""The arithmetic in which this processor trains fastest."""

from __future__ import annotations

import time
from functools import cache

import torch


@cache
def arithmetic_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it faster than float32, else float32.

    Asked of a stopwatch: with matrix units bfloat16 is several times as fast, without any it is up to forty times slower.
    """
    return min((torch.bfloat16, torch.float32), key=_matmul_s)


def _matmul_s(dtype: torch.dtype) -> float:
    """Seconds of a product as large as the models' own; the best of three, the first of which also warms up."""
    a, b = torch.ones(512, 192, dtype=dtype), torch.ones(192, 576, dtype=dtype)

    def once() -> float:
        began = time.perf_counter()
        a @ b
        return time.perf_counter() - began

    return min(once() for _ in range(3))
