"""The zoo as the service ships it: cards, labelled questions and what was measured. Reads files, runs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
WEIGHTS = FOLDER / "weights"
"""One folder per expert: Hugging Face format, or PEFT for LoRA adapters."""


def _rows(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line] if path.exists() else []


def manifest_text() -> str:
    """The zoo's ``experts.yaml``: experts, strategies, skills."""
    return (FOLDER / "experts.yaml").read_text(encoding="utf-8")


def labelled_questions() -> list[dict[str, Any]]:
    """The validation questions, for profiles and for the index of labelled questions."""
    return _rows("validation.jsonl")


def outcomes() -> list[dict[str, Any]]:
    """How each expert did on each validation question; packed by ``zoo.pack_outcomes``."""
    questions = {row["id"]: row for row in labelled_questions()}
    return [
        {
            "expert_id": expert_id,
            "question_id": row["id"],
            "skills": questions[row["id"]]["skills"],
            "category": questions[row["id"]]["category"],
            "correct": expert_id in row["right"],
            "answer": answer,
            "latency_ms": 0.0,
            "error": None,
        }
        for row in _rows("outcomes.jsonl")
        for expert_id, answer in row["answers"].items()
    ]


def aggregator_outcomes() -> list[dict[str, Any]]:
    """How each aggregator did on one right and two wrong answers."""
    return _rows("aggregator_outcomes.jsonl")
