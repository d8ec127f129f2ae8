"""What experts scored on questions, as one table: what learned routers are fitted on and evaluations read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOT_MEASURED = float("nan")


def floats(values: Iterable[float]) -> array[float]:
    """*values* as the float32 that the table keeps; 4 bytes each, and readable by numpy without a copy."""
    return array("f", values)


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """N questions by E experts. Matrices are flat and row by row: the cell of question *n* and expert *e* is at ``n * E + e``.

    Raises ``ValueError`` when the lengths disagree.
    """

    questions: tuple[str, ...]
    expert_ids: tuple[str, ...]
    scores: array[float]
    """(N × E) in [0, 1]; NaN where the expert was not measured on the question."""
    question_ids: tuple[str, ...] = ()
    """(N) or empty: what a neighbour is called in an explanation, and an outcome in a store."""
    categories: tuple[str | None, ...] = ()
    """(N) or empty: the coarse domain or task of each question."""
    skills: tuple[tuple[str, ...], ...] = ()
    """(N) or empty: labels of each question."""
    usd: array[float] | None = None
    """(N × E) price of each answer in US dollars, NaN where unknown."""
    tokens: array[float] | None = None
    """(N × E) tokens of each call, prompt and answer."""
    latency_ms: array[float] | None = None
    """(N × E)."""

    def __post_init__(self) -> None:
        cells = len(self.questions) * len(self.expert_ids)
        for name in ("scores", "usd", "tokens", "latency_ms"):
            matrix = getattr(self, name)
            if matrix is not None and len(matrix) != cells:
                raise ValueError(
                    f"{name} has {len(matrix)} cells, {len(self.questions)} questions × {len(self.expert_ids)} experts are {cells}"
                )
        for name in ("question_ids", "categories", "skills"):
            column: Sequence[object] = getattr(self, name)
            if column and len(column) != len(self.questions):
                raise ValueError(f"{name} has {len(column)} entries for {len(self.questions)} questions")

    def __len__(self) -> int:
        return len(self.questions)

    def rows(self, numbers: Sequence[int]) -> OutcomeTable:
        """The table of these questions only, in this order: a split is made of such."""
        width = len(self.expert_ids)

        def taken(matrix: array[float] | None) -> array[float] | None:
            if matrix is None:
                return None
            part = array("f")
            for number in numbers:
                part.extend(matrix[number * width : (number + 1) * width])
            return part

        return OutcomeTable(
            questions=tuple(self.questions[n] for n in numbers),
            expert_ids=self.expert_ids,
            scores=taken(self.scores) or array("f"),
            question_ids=tuple(self.question_ids[n] for n in numbers) if self.question_ids else (),
            categories=tuple(self.categories[n] for n in numbers) if self.categories else (),
            skills=tuple(self.skills[n] for n in numbers) if self.skills else (),
            usd=taken(self.usd),
            tokens=taken(self.tokens),
            latency_ms=taken(self.latency_ms),
        )
