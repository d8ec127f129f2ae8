"""Outcome tables from files: JSONL and CSV, and what experts cost.

JSONL, one question a line: ``{"question", "scores": {expert: score}}`` and, where known, ``id``, ``task`` or ``category``,
``skills``, and per expert ``usd`` (or ``price``) of the answer, ``tokens``, ``latency_ms``, ``answers``. A question without scores can
be routed, not judged.

CSV with a header, long or wide. Long: ``question, expert, score`` and, where known, ``id``, ``task`` or ``category``, ``skills``
(separated by ``;``), ``usd`` or ``price``, ``tokens``, ``latency_ms``, ``answer``. Wide: ``question``, those of a question, and a column
of scores per expert, named by it; ``usd:EXPERT``, ``tokens:EXPERT`` and ``latency_ms:EXPERT`` beside it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from evaluation.outcomes.rows import FIELDS, OutcomeRow, Outcomes, amount, outcomes_of, row_of, score, wrong

MAX_FILE_BYTES = 2_000_000_000
MAX_LINE_BYTES = 4_000_000
"""Of one question with everything that a thousand experts answered in short; a line that is longer is no table of outcomes."""
MAX_QUESTIONS = 2_000_000
_OF_A_QUESTION = ("id", "question", "task", "category", "skills")
_OF_AN_OUTCOME = {"score": "scores", "usd": "usd", "price": "usd", "tokens": "tokens", "latency_ms": "latency_ms"}


@dataclass(frozen=True, slots=True)
class ExpertCost:
    """What an expert declares about its cost."""

    id: str
    usd_per_million_tokens: float | None = None
    parameters_b: float | None = None


def read_outcomes(path: Path, *, expert_ids: Sequence[str] | None = None) -> Outcomes:
    """The table of *path*, CSV by its suffix, else JSONL. *expert_ids* gives the columns, and their order.

    Raises ``InvalidRequest`` naming file, line and field for the first thing that is wrong, also when the file cannot be read,
    is too large, holds no question, or names an expert that is not among *expert_ids*.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _from_csv(file, str(path)) if path.suffix.lower() == ".csv" else list(_from_jsonl(file, str(path)))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 (byte {error.start})") from error
    if expert_ids is not None:
        for expert in dict.fromkeys(expert for row in rows for expert in row.scores):
            if expert not in expert_ids:
                raise InvalidRequest(f"{path} has scores of {quoted(expert)}, who is not listed; {did_you_mean(expert, expert_ids)}")
    return outcomes_of(rows, expert_ids, source=str(path))


def read_experts(path: Path) -> dict[str, ExpertCost]:
    """Costs by expert id: a JSON list of ``{"id", "parameters_b"?, "usd_per_million_tokens"?}``. Raises ``InvalidRequest``."""
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path}: not JSON ({error})") from error
    if not isinstance(given, list) or not given:
        raise InvalidRequest(f'{path}: expected a list of experts: [{{"id": "…", "usd_per_million_tokens": 0.2}}, …]')
    experts: dict[str, ExpertCost] = {}
    for number, entry in enumerate(given, start=1):
        where = f"{path}, expert {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"]:
            raise InvalidRequest(f'{where}: expected an object with an "id", found {quoted(entry)}')
        if entry["id"] in experts:
            raise wrong(where, "id", f"{entry['id']!r} is there already")
        experts[entry["id"]] = ExpertCost(
            entry["id"], _declared(entry, "usd_per_million_tokens", where), _declared(entry, "parameters_b", where)
        )
    return experts


def _declared(entry: Mapping[str, Any], name: str, where: str) -> float | None:
    if entry.get(name) is None:
        return None
    try:
        return amount(entry[name])
    except ValueError as error:
        raise wrong(where, name, str(error)) from None


def _from_jsonl(file: IO[str], source: str) -> Iterator[OutcomeRow]:
    num_questions, number = 0, 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        where = f"{source}, line {number}"
        if len(line) == MAX_LINE_BYTES:
            raise InvalidRequest(f"{where}: longer than {MAX_LINE_BYTES} letters")
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
        except RecursionError as error:
            raise InvalidRequest(f"{where}: nested too deeply") from error
        if not isinstance(given, dict):
            raise InvalidRequest(f"{where}: expected an object, found {quoted(given)}")
        num_questions += 1
        if num_questions > MAX_QUESTIONS:
            raise InvalidRequest(f"{where}: more than {MAX_QUESTIONS} questions")
        yield row_of(given, where)


def _from_csv(file: IO[str], source: str) -> list[OutcomeRow]:
    reader = csv.DictReader(file, strict=True)
    try:
        header = list(reader.fieldnames or ())
        if "question" not in header:
            raise InvalidRequest(f"{source}, line 1: expected a header with a column 'question', found {quoted(header)}")
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise InvalidRequest(f"{source}, line 1: the column {quoted(twice)} is there twice")
        read = _long if {"expert", "score"} <= set(header) else _wide
        rows: dict[tuple[str, str], OutcomeRow] = {}
        for record in reader:
            where = f"{source}, line {reader.line_num}"
            if None in record:
                raise InvalidRequest(f"{where}: more cells than the header has columns")
            read(record, rows, where)
            if len(rows) > MAX_QUESTIONS:
                raise InvalidRequest(f"{where}: more than {MAX_QUESTIONS} questions")
        return list(rows.values())
    except csv.Error as error:
        raise InvalidRequest(f"{source}, line {reader.line_num}: not CSV ({error})") from error


Record = Mapping[str, str | None]


def _question(record: Record, where: str) -> OutcomeRow:
    given: dict[str, Any] = {name: record[name] for name in _OF_A_QUESTION if record.get(name)}
    if "skills" in given:
        given["skills"] = str(given["skills"]).split(";")
    return row_of(given, where)


def _long(record: Record, rows: dict[tuple[str, str], OutcomeRow], where: str) -> None:
    made = _question(record, where)
    row = rows.setdefault((made.id, made.question), made)
    expert = (record.get("expert") or "").strip()
    if not expert:
        raise wrong(where, "expert", "missing or empty")
    if expert in row.scores:
        raise wrong(where, "expert", f"{quoted(expert)} has a score for this question already")
    for name, place in _OF_AN_OUTCOME.items():
        if name in record:
            getattr(row, place)[expert] = _number(record[name], name, where)
    if answer := record.get("answer"):
        row.answers[expert] = answer


def _wide(record: Record, rows: dict[tuple[str, str], OutcomeRow], where: str) -> None:
    row = _question(record, where)
    for name, cell in record.items():
        if name in FIELDS or not name:
            continue
        place, _, expert = name.partition(":")
        if expert and place in _OF_AN_OUTCOME:
            getattr(row, _OF_AN_OUTCOME[place])[expert] = _number(cell, place, where)
        else:
            row.scores[name] = _number(cell, "score", where, shown=name)
    # A table with a question twice has it twice: duplicates are counted where they are dropped.
    rows[row.id, f"{row.question}\n{len(rows)}"] = row


def _number(cell: str | None, name: str, where: str, *, shown: str | None = None) -> float:
    text = (cell or "").strip()
    read = score if name == "score" else amount
    try:
        return read(float(text) if text else None)
    except ValueError as error:
        problem = str(error) if "expected" in str(error) else f"expected a number, found {quoted(text)}"
        raise wrong(where, shown or name, problem) from None
