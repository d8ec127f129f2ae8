"""One question's outcomes as read, with errors that name line and field, and many of them as one table."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import MISSPELT, nearest
from domain.outcomes import NOT_MEASURED, OutcomeTable
from domain.quoting import quoted

MAX_EXPERTS = 1024
"""As many as the largest registry that routing is measured with."""
MAX_CELLS = 50_000_000
"""Questions × experts of one table: 200 MB for each of its matrices."""
MAX_QUESTION_CHARS = 200_000
"""Letters of one question; no encoder reads more than a few thousand."""
PER_EXPERT = ("scores", "usd", "tokens", "latency_ms", "answers")
FIELDS = ("id", "question", "task", "category", "skills", "price", *PER_EXPERT)

Cells = Mapping[str, float]


@dataclass(slots=True)
class OutcomeRow:
    """One question with what each expert made of it."""

    question: str
    id: str = ""
    category: str | None = None
    skills: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    usd: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A table, and the answers behind it where the file had them."""

    table: OutcomeTable
    answers: tuple[str | None, ...] | None = None
    """(N × E) row by row, as the table's matrices."""

    def rows(self, numbers: Sequence[int]) -> Outcomes:
        """Those questions only, in this order."""
        width = len(self.table.expert_ids)
        answers = None if self.answers is None else tuple(a for n in numbers for a in self.answers[n * width : (n + 1) * width])
        return Outcomes(self.table.rows(numbers), answers)

    def of_experts(self, expert_ids: Sequence[str]) -> Outcomes:
        """Those of the table's experts only, in this order."""
        width, places = len(self.table.expert_ids), [self.table.expert_ids.index(expert) for expert in expert_ids]
        cells = [row * width + place for row in range(len(self.table)) for place in places]

        def taken(matrix: array[float] | None) -> array[float] | None:
            return None if matrix is None else array("f", (matrix[cell] for cell in cells))

        table = replace(
            self.table,
            expert_ids=tuple(expert_ids),
            scores=taken(self.table.scores) or array("f"),
            usd=taken(self.table.usd),
            tokens=taken(self.table.tokens),
            latency_ms=taken(self.table.latency_ms),
        )
        return Outcomes(table, None if self.answers is None else tuple(self.answers[cell] for cell in cells))


def row_of(given: Mapping[str, Any], where: str) -> OutcomeRow:
    """A line of JSONL as a row. Raises ``InvalidRequest`` naming *where* and the field.

    A field that is like none of ``FIELDS`` is somebody else's and left alone; a misspelt one is refused.
    """
    for name in given:
        if name not in FIELDS and (meant := nearest(name, FIELDS, similarity=MISSPELT)) is not None:
            raise wrong(where, name, f"unknown field; did you mean {meant!r}?")
    usd = given.get("usd")
    return OutcomeRow(
        question=_text(given, "question", where, required=True),
        id=_text(given, "id", where),
        category=_text(given, "category", where) or _text(given, "task", where) or None,
        skills=_texts(given, "skills", where),
        scores=_cells(given.get("scores"), "scores", where, score),
        usd=_cells(given.get("price") if usd is None else usd, "price" if usd is None else "usd", where, amount),
        tokens=_cells(given.get("tokens"), "tokens", where, amount),
        latency_ms=_cells(given.get("latency_ms"), "latency_ms", where, amount),
        answers=_answers(given.get("answers"), where),
    )


def outcomes_of(rows: Sequence[OutcomeRow], expert_ids: Sequence[str] | None = None, *, source: str) -> Outcomes:
    """*rows* as a table whose columns are *expert_ids*; without them, every expert in the order of first appearance.

    Raises ``InvalidRequest`` when there is no question, or the table would pass ``MAX_EXPERTS`` or ``MAX_CELLS``.
    """
    if not rows:
        raise InvalidRequest(f'{source} holds no question; write one object a line: {{"question": "…", "scores": {{"EXPERT": 1.0}}}}')
    found = dict.fromkeys(expert for row in rows for expert in row.scores)
    columns = tuple(found if expert_ids is None else expert_ids)
    if len(columns) > MAX_EXPERTS:
        raise InvalidRequest(f"{source} has {len(columns)} experts; at most {MAX_EXPERTS} are compared")
    if len(rows) * max(1, len(columns)) > MAX_CELLS:
        raise InvalidRequest(f"{source}: {len(rows)} questions × {len(columns)} experts are over the limit of {MAX_CELLS} cells")
    table = OutcomeTable(
        questions=tuple(row.question for row in rows),
        expert_ids=columns,
        scores=_matrix((row.scores for row in rows), columns) or array("f"),
        question_ids=tuple(row.id or f"q{number}" for number, row in enumerate(rows, start=1)),
        categories=tuple(row.category for row in rows) if any(row.category for row in rows) else (),
        skills=tuple(row.skills for row in rows) if any(row.skills for row in rows) else (),
        usd=_known((row.usd for row in rows), columns),
        tokens=_known((row.tokens for row in rows), columns),
        latency_ms=_known((row.latency_ms for row in rows), columns),
    )
    answers = tuple(row.answers.get(expert) for row in rows for expert in columns) if any(row.answers for row in rows) else None
    return Outcomes(table, answers)


def score(value: object) -> float:
    """*value* as a score in [0, 1]; NaN for null. Raises ``ValueError`` saying what is wrong."""
    number = amount(value)
    if number > 1:
        raise ValueError(f"expected a score from 0 to 1, found {quoted(value)}")
    return number


def amount(value: object) -> float:
    """*value* as a number from 0; NaN for null. Raises ``ValueError`` saying what is wrong."""
    if value is None:
        return NOT_MEASURED
    if not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {quoted(value)}")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"expected a finite number from 0, found {quoted(value)}")
    return number


def wrong(where: str, name: str, problem: str) -> InvalidRequest:
    """The error for field *name* at *where*."""
    return InvalidRequest(f"{where}: field {quoted(name)}: {problem}", param=name)


def _cells(value: object, name: str, where: str, read: Any) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(where, name, f'expected an object {{"EXPERT": number}}, found {quoted(value)}')
    cells: dict[str, float] = {}
    for expert, cell in value.items():
        try:
            cells[expert] = read(cell)
        except ValueError as error:
            raise wrong(where, f"{name}.{expert}", str(error)) from None
    return cells


def _answers(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(answer is None or isinstance(answer, str) for answer in value.values()):
        raise wrong(where, "answers", f'expected an object {{"EXPERT": "answer"}}, found {quoted(value)}')
    return {expert: answer for expert, answer in value.items() if answer is not None}


def _text(given: Mapping[str, Any], name: str, where: str, *, required: bool = False) -> str:
    value = given.get(name)
    if isinstance(value, int) and name == "id":
        value = str(value)
    if value is None or value == "":
        if required:
            raise wrong(where, name, "missing or empty")
        return ""
    if not isinstance(value, str):
        raise wrong(where, name, f"expected text, found {quoted(value)}")
    if required and not value.strip():
        raise wrong(where, name, "empty")
    if len(value) > MAX_QUESTION_CHARS:
        raise wrong(where, name, f"{len(value)} letters; at most {MAX_QUESTION_CHARS}")
    return value


def _texts(given: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = given.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(where, name, f"expected a list of texts, found {quoted(value)}")
    return tuple(dict.fromkeys(item.strip() for item in value if item.strip()))


def _known(cells: Iterable[Cells], columns: Sequence[str]) -> array[float] | None:
    kept = list(cells)
    return _matrix(kept, columns) if any(kept) else None


def _matrix(cells: Iterable[Cells], columns: Sequence[str]) -> array[float]:
    return array("f", (row.get(expert, NOT_MEASURED) for row in cells for expert in columns))
