"""Training and test questions as one table, so that rows of it are the only way to say which is which. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.outcomes import OutcomeTable
from evaluation.outcomes.rows import Outcomes

Answers = Sequence[Sequence[str | None]] | None
"""(N, E)."""


def joined(train: OutcomeTable, test: OutcomeTable | None) -> OutcomeTable:
    """Training questions, then test questions, on the training table's experts."""
    if test is None:
        return train
    columns = {expert: column for column, expert in enumerate(test.expert_ids)}

    def both(name: str) -> Any:
        ours, theirs = getattr(train, name), getattr(test, name)
        if ours is None and theirs is None:
            return None
        parts = []
        for table, matrix in ((train, ours), (test, theirs)):
            cells = np.full((len(table), len(train.expert_ids)), np.nan, np.float32)
            if matrix is not None:
                given = np.array(matrix, np.float32).reshape(len(table), len(table.expert_ids))
                for place, expert in enumerate(train.expert_ids):
                    column = place if table is train else columns.get(expert)
                    if column is not None:
                        cells[:, place] = given[:, column]
            parts.append(cells)
        cells_of_both = array("f")
        cells_of_both.frombytes(np.concatenate(parts).tobytes())
        return cells_of_both

    def labels(name: str, nothing: object) -> Any:
        ours, theirs = getattr(train, name), getattr(test, name)
        return (*(ours or (nothing,) * len(train)), *(theirs or (nothing,) * len(test))) if ours or theirs else ()

    return OutcomeTable(
        questions=(*train.questions, *test.questions),
        expert_ids=train.expert_ids,
        scores=both("scores"),
        question_ids=labels("question_ids", ""),
        categories=labels("categories", None),
        skills=labels("skills", ()),
        usd=both("usd"),
        tokens=both("tokens"),
        latency_ms=both("latency_ms"),
    )


def answers_in(pool: OutcomeTable, train: Outcomes, test: Outcomes | None) -> Answers:
    """The answers behind *pool*, which is *train* and *test* joined; None when the table that is judged has none."""
    given = [train] if test is None else [train, test]
    if (test or train).answers is None:
        return None
    rows: list[list[str | None]] = []
    for outcomes in given:
        table, flat = outcomes.table, outcomes.answers
        width, columns = len(table.expert_ids), {expert: column for column, expert in enumerate(table.expert_ids)}
        for number in range(len(table)):
            line = (None,) * width if flat is None else flat[number * width : (number + 1) * width]
            rows.append([line[columns[expert]] if expert in columns else None for expert in pool.expert_ids])
    return rows
