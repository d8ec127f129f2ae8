"""Splits of questions into those to fit on and those to judge on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domain.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of questions. Nobody is in both."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def k_folds(num_questions: int, num_folds: int, *, seed: int) -> list[Split]:
    """Each question is tested once, in a random fold; folds differ by one question at most. Raises ``InvalidRequest``."""
    if not 2 <= num_folds <= num_questions:
        raise InvalidRequest(f"{num_folds} folds of {num_questions} questions: take at least 2, and no more than there are questions")
    order = np.random.default_rng(seed).permutation(num_questions)
    folds = [np.sort(part) for part in np.array_split(order, num_folds)]
    return [
        Split(f"fold {number}", tuple(int(n) for n in np.sort(np.concatenate([*folds[: number - 1], *folds[number:]]))), _ints(fold))
        for number, fold in enumerate(folds, start=1)
    ]


def leave_one_out(categories: Sequence[str | None]) -> list[Split]:
    """Each category is tested by what was fitted on all others. Raises ``InvalidRequest`` when there are fewer than two."""
    names = sorted({category for category in categories if category})
    if len(names) < 2:
        raise InvalidRequest(f"leaving one task out needs questions of at least two tasks; the field 'task' names {len(names)}")
    return [
        Split(
            name,
            tuple(number for number, category in enumerate(categories) if category != name),
            tuple(number for number, category in enumerate(categories) if category == name),
        )
        for name in names
    ]


def _ints(numbers: np.typing.NDArray[np.integer]) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)
