"""Labelled questions as JSONL: reading with errors that name line and field, and asking.

One object a line: ``question`` and ``answer``, and, where wanted, ``id``, ``category``, ``skills``, ``options``,
``grader`` and ``history`` (earlier messages of the conversation, OpenAI's shape).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domain.chat import Message
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.skills import GRADER_NAMES, LabelledQuestion

FIELDS = ("id", "question", "answer", "category", "skills", "options", "grader", "history")
MAX_OPTIONS = 26
"""One letter each."""
_ROLES = ("system", "developer", "user", "assistant", "tool")


def read_labelled(path: Path, *, also: Iterable[str] = ()) -> list[LabelledQuestion]:
    """The questions of *path*, in order; blank lines are skipped. Fields named by *also* may stand there and are ignored.

    Raises ``InvalidRequest`` naming file, line and field for the first thing that is wrong, also when the file cannot be
    read, holds no question, or gives one id to two different questions.
    """
    return [question for question, _ in read_labelled_rows(path, also=also)]


def read_labelled_rows(path: Path, *, also: Iterable[str] = ()) -> list[tuple[LabelledQuestion, Mapping[str, Any]]]:
    """Like ``read_labelled``, each question with its whole row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 (byte {error.start})") from error
    return parse_labelled(text, source=str(path), also=also)


def parse_labelled(text: str, *, source: str = "input", also: Iterable[str] = ()) -> list[tuple[LabelledQuestion, Mapping[str, Any]]]:
    """``read_labelled_rows`` for text that is already there; *source* names it in errors."""
    known = (*FIELDS, *also)
    rows: list[tuple[LabelledQuestion, Mapping[str, Any]]] = []
    first_line: dict[str, int] = {}
    seen: dict[str, LabelledQuestion] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        row = _object_of(line, where)
        question = _question_of(row, known, where)
        if question.id in seen:
            if question == seen[question.id]:
                continue
            raise _wrong(where, "id", f"{question.id!r} is already the id of another question, on line {first_line[question.id]}")
        first_line[question.id], seen[question.id] = number, question
        rows.append((question, row))
    if not rows:
        raise InvalidRequest(f'{source} holds no question; write one object a line: {{"question": "…", "answer": "…"}}')
    return rows


def row_of(question: LabelledQuestion) -> dict[str, Any]:
    """*question* as a JSON object."""
    row: dict[str, Any] = {"id": question.id, "question": question.question, "answer": question.answer}
    optional = {
        "category": question.category,
        "skills": list(question.skills),
        "options": list(question.options),
        "grader": question.grader,
        "history": [dict(message) for message in question.history],
    }
    return row | {name: value for name, value in optional.items() if value}


def content_id(question: str, answer: str, options: tuple[str, ...] = (), history: tuple[Message, ...] = ()) -> str:
    """An id made from what is asked and answered: the same question has it in every file."""
    content = json.dumps([question, answer, list(options), [dict(m) for m in history]], ensure_ascii=False, sort_keys=True)
    return "q-" + hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def messages_of(question: LabelledQuestion) -> tuple[Message, ...]:
    """The chat that asks *question*: its history, then the question with its options, if any, lettered below it."""
    options = "".join(f"\n({chr(65 + index)}) {option}" for index, option in enumerate(question.options))
    return (*question.history, {"role": "user", "content": question.question + options})


def _object_of(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise InvalidRequest(f"{where}: nested too deeply") from error
    if not isinstance(row, dict):
        raise InvalidRequest(f"{where}: expected an object, found {_kind(row)}")
    return row


def _question_of(row: Mapping[str, Any], known: tuple[str, ...], where: str) -> LabelledQuestion:
    for name in row:
        if name not in known:
            raise _wrong(where, name, f"unknown field; {did_you_mean(name, known)}")
    text = _text(row, "question", where, required=True)
    answer = _answer(row, where)
    options = _texts(row, "options", where)
    if len(options) > MAX_OPTIONS:
        raise _wrong(where, "options", f"at most {MAX_OPTIONS}, found {len(options)}")
    history = _history(row, where)
    return LabelledQuestion(
        id=_text(row, "id", where) or content_id(text, answer, options, history),
        question=text,
        answer=answer,
        category=_text(row, "category", where) or None,
        skills=tuple(dict.fromkeys(_texts(row, "skills", where))),
        options=options,
        grader=_grader(row, answer, where),
        history=history,
    )


def _answer(row: Mapping[str, Any], where: str) -> str:
    value = row.get("answer")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return _text(row, "answer", where, required=True)


def _grader(row: Mapping[str, Any], answer: str, where: str) -> str | None:
    grader = _text(row, "grader", where) or None
    if grader is not None and grader not in GRADER_NAMES:
        raise _wrong(where, "grader", f"unknown grader {grader!r}; {did_you_mean(grader, GRADER_NAMES)}")
    if grader == "regex":
        try:
            re.compile(answer)
        except re.error as error:
            raise _wrong(where, "answer", f"not a regular expression ({error})") from error
    return grader


def _history(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    value = row.get("history")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _wrong(where, "history", f"expected a list of messages, found {_kind(value)}")
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            raise _wrong(where, f"history[{index}]", f'expected {{"role": …, "content": …}}, found {_kind(message)}')
        if message.get("role") not in _ROLES:
            raise _wrong(where, f"history[{index}].role", f"expected one of {', '.join(_ROLES)}, found {message.get('role')!r}")
        if not isinstance(message.get("content"), str | list | None):
            raise _wrong(where, f"history[{index}].content", f"expected text or content parts, found {_kind(message['content'])}")
    return tuple(value)


def _text(row: Mapping[str, Any], name: str, where: str, *, required: bool = False) -> str:
    value = row.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise _wrong(where, name, "missing" if value is None else f"expected text, found {_kind(value)}")
    value = value.strip()
    if required and not value:
        raise _wrong(where, name, "empty")
    return value


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _wrong(where, name, f"expected a list of texts, found {_kind(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item.strip():
            raise _wrong(where, f"{name}[{index}]", f"expected text, found {_kind(item) if item != '' else 'an empty one'}")
    return tuple(item.strip() for item in value)


def _wrong(where: str, name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: field {name!r}: {problem}", param=name)


def _kind(value: object) -> str:
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
