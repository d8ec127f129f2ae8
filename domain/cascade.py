"""What a cascade judges an answer by, and when it goes on to the next expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Confidence = Literal["agreement", "logprob", "judge"]
CONFIDENCES: tuple[str, ...] = get_args(Confidence)


@dataclass(frozen=True, slots=True)
class CascadeRule:
    """Experts are asked one after the other, until an answer is confident enough (Mowst, arXiv 2311.05185)."""

    confidence: str = "agreement"
    """``agreement`` of several samples, ``logprob`` (mean log-probability of the answer's tokens), or an expert as ``judge``."""
    threshold: float = 0.5
    """Confidence, in [0, 1], from which an answer is taken. Above 1 none is, but the last expert's."""
    samples: int = 3
    """Answers of one expert that are compared; for ``agreement``."""
    judge_expert: str | None = None
    """Who judges; for ``judge``."""

    @property
    def calls_per_stage(self) -> int:
        """Calls that an expert's answer and its judgement take; the last expert's takes one."""
        return {"agreement": self.samples, "judge": 2}.get(self.confidence, 1)
