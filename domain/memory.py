"""Solved problems that were checked, kept for each tenant, and what of them a request was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

MemorySource = Literal["feedback", "import"]
"""Who vouched for the answer: a user who said that it is right, or somebody with the admin key who entered it."""
MEMORY_SOURCES: tuple[str, ...] = get_args(MemorySource)
LOCAL_TENANT = "_local"
"""Who comes in without a stored key. No key can have this id."""
MAX_PROBLEM_CHARS = 4_000
"""Letters of a problem. A longer one is not kept: five of them have to fit beside a question."""
MAX_SOLUTION_CHARS = 8_000
"""Letters of its answer. A longer one is not kept rather than cut: half of a checked answer was not checked."""


def tenant_of(key_id: str | None) -> str:
    """Whose memory a request with that key reads and fills."""
    return LOCAL_TENANT if key_id is None else key_id


@dataclass(frozen=True, slots=True)
class SolvedProblem:
    """One problem with an answer that somebody vouched for. Times are seconds since the epoch."""

    id: str
    tenant: str
    question: str
    answer: str
    """Without reasoning."""
    source: MemorySource
    created_at: float
    skills: tuple[str, ...] = ()
    expert_id: str | None = None
    """Whose answer it is, where one expert's."""
    trace_id: str | None = None
    """The request that it was solved in."""
    feedback_id: str | None = None
    """What was said of it: taken back, the problem goes."""
    used_at: float | None = None
    """When it was last shown to an expert; None: never."""
    sequence: int = 0
    """Its place among all that were kept, from 1; given by the store."""
    encoder_id: str | None = None
    vector: bytes | None = field(default=None, repr=False)
    """(D) float16, little-endian, as the encoder ``encoder_id`` sees the question; None where it was not made yet."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A solved problem as it is shown beside a question."""

    problem_id: str
    question: str = field(repr=False)
    answer: str = field(repr=False)
    similarity: float = 0.0
    """Cosine of both questions, in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Recollection:
    """What the memory gave to one request. Decided once: a batch keeps it with the line's route."""

    shown: tuple[Demonstration, ...] = ()
    """Best first."""
    writes: bool = False
    """Whether the answer may enter the memory once somebody says that it is right."""
    why: str = ""
    """Why nothing is shown; "" where something is."""

    @property
    def told(self) -> Mapping[str, Any]:
        """For the trace and the explanation, in JSON values: which problems, never their words."""
        shown = [{"id": one.problem_id, "similarity": round(one.similarity, 4)} for one in self.shown]
        return {"shown": shown, "writes": self.writes, **({"why": self.why} if self.why else {})}


NOTHING_RECALLED = Recollection()
