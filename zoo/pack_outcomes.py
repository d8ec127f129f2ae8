"""Pack measured outcomes for shipping: ``python -m zoo.pack_outcomes exported.jsonl``.

Takes what ``consilium profile export`` wrote. ``zoo/outcomes.jsonl`` gets one line a question: who answered what, and who was
right. ``zoo/aggregator_outcomes.jsonl`` gets one line a question and aggregator. ``zoo.release`` unpacks both.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.release import FOLDER

MAX_ANSWER_CHARS = 40
"""Answers of experts far from their ground ramble; their beginnings are enough to show an aggregator."""


def pack(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exported outcomes, one a call, as one row a question, in the order in which the questions first come."""
    by_question: dict[str, dict[str, Any]] = defaultdict(lambda: {"answers": {}, "right": []})
    for row in rows:
        packed = by_question[row["question_id"]]
        packed["answers"][row["expert_id"]] = row["answer"][:MAX_ANSWER_CHARS]
        if row["correct"]:
            packed["right"].append(row["expert_id"])
    return [{"id": question_id, **packed} for question_id, packed in by_question.items()]


def pack_aggregated(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exported outcomes of aggregators, without what the release knows anyway."""
    return [
        {"expert_id": row["expert_id"], "question_id": row["question_id"], "category": row["category"], "correct": row["correct"],
         "answer": row["answer"][:MAX_ANSWER_CHARS]}
        for row in rows
    ]  # fmt: skip


def _write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    (FOLDER / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path, help="what `consilium profile export` wrote")
    source: Path = parser.parse_args().exported
    exported = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    answered = [row for row in exported if row["error"] is None]
    rows = pack(row for row in answered if row["kind"] == "outcome")
    aggregated = pack_aggregated(row for row in answered if row["kind"] == "aggregator_outcome")
    _write("outcomes.jsonl", rows)
    _write("aggregator_outcomes.jsonl", aggregated)
    print(f"{sum(len(row['answers']) for row in rows)} answers to {len(rows)} questions, {len(aggregated)} outcomes of aggregators")


if __name__ == "__main__":
    main()
