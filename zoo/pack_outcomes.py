"""Pack measured outcomes for shipping: ``python -m zoo.pack_outcomes exported.jsonl``.

Takes what ``consilium profile export`` wrote and writes ``zoo/outcomes.jsonl``, one line a question: who answered what, and who
was right. ``zoo.release.outcomes`` unpacks it.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path, help="what `consilium profile export` wrote")
    source: Path = parser.parse_args().exported
    exported = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    rows = pack(row for row in exported if row["kind"] == "outcome" and row["error"] is None)
    target = FOLDER / "outcomes.jsonl"
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{target.name}: {sum(len(row['answers']) for row in rows)} answers to {len(rows)} questions")


if __name__ == "__main__":
    main()
