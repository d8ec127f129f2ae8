"""Packed outcomes say what was measured: what the release unpacks is what the profile run exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo import pack_outcomes, release

QUESTIONS = [
    {"id": "q1", "question": "1+1", "answer": "2", "category": "arithmetic", "skills": ["addition"]},
    {"id": "q2", "question": "Capital of Peru?", "answer": "Lima", "category": "facts", "skills": ["capitals"]},
]
RAMBLE = "yes and then " * 10


def outcome(expert: str, question: dict[str, Any], answer: str, *, correct: bool, **changes: Any) -> dict[str, Any]:
    """A line of ``consilium profile export``."""
    return {
        "kind": "outcome",
        "expert_id": expert,
        "question_id": question["id"],
        "skills": question["skills"],
        "category": question["category"],
        "correct": correct,
        "answer": answer,
        "latency_ms": 12.5,
        "error": None,
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty zoo with two labelled questions."""
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    monkeypatch.setattr(pack_outcomes, "FOLDER", tmp_path)
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


def pack(folder: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    exported = folder / "exported.jsonl"
    exported.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["pack_outcomes", str(exported)])
    pack_outcomes.main()


def test_what_was_exported_comes_back_with_who_was_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, capitals = QUESTIONS
    rows = [
        outcome("arithmetic", sums, "2", correct=True),
        outcome("facts", sums, "Lima", correct=False),
        outcome("arithmetic", capitals, "7", correct=False),
        outcome("facts", capitals, "Lima", correct=True),
    ]

    pack(folder, rows, monkeypatch)

    assert release.outcomes() == [{key: value for key, value in row.items() if key != "kind"} | {"latency_ms": 0.0} for row in rows]


def test_failed_calls_are_left_out_and_rambling_answers_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, capitals = QUESTIONS
    failed = outcome("facts", sums, "", correct=False, error="it timed out")

    pack(folder, [failed, outcome("arithmetic", capitals, RAMBLE, correct=False)], monkeypatch)

    (unpacked,) = release.outcomes()
    assert (unpacked["expert_id"], unpacked["answer"], unpacked["correct"]) == ("arithmetic", RAMBLE[:40], False)


def test_outcomes_of_aggregators_are_packed_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, _ = QUESTIONS
    rows = [
        outcome("aggregator", sums, "2", correct=True, kind="aggregator_outcome"),
        outcome("generalist", sums, "3", correct=False, kind="aggregator_outcome"),
    ]

    pack(folder, rows, monkeypatch)

    assert release.outcomes() == []
    assert [
        (row["expert_id"], row["question_id"], row["category"], row["answer"], row["correct"]) for row in release.aggregator_outcomes()
    ] == [
        ("aggregator", "q1", "arithmetic", "2", True),
        ("generalist", "q1", "arithmetic", "3", False),
    ]
