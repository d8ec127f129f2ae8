"""Write ``zoo/validation.jsonl``, ``zoo/test.jsonl`` and ``zoo/multistep.jsonl``: ``python -m zoo.build_questions``.

Fixed seeds: the files come out the same every time. Validation questions make profiles and the router's index; test
questions are only ever asked to measure.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from zoo.questions import GENERATORS, multistep
from zoo.questions.base import Question, Split
from zoo.release import FOLDER

NUM_VALIDATION, NUM_TEST = 200, 80
"""Questions per domain."""
NUM_MULTISTEP = 20
"""Questions of each kind in ``multistep.jsonl``."""
_TRICKY_SHARE = {"validation": 0.25, "test": 0.2}


def draw_split(split: Split, num_questions: int, *, seed: int, seen: set[str]) -> list[dict[str, object]]:
    """*num_questions* rows per domain, none of whose texts is in *seen* (which grows)."""
    rows: list[dict[str, object]] = []
    for domain, generator in GENERATORS.items():
        rng = Random(f"{seed}:{domain}")
        num_tricky = round(num_questions * _TRICKY_SHARE[split])
        count = 0
        while count < num_questions:
            question = generator(rng, split, tricky=count < num_tricky)
            key = f"{question.history}{question.text}"
            if key in seen or (count >= num_tricky and question.tricky):
                continue
            seen.add(key)
            rows.append(_row(f"{split}-{domain}-{count:03}", question, mark=split == "test"))
            count += 1
    return rows


def draw_multistep(num_questions: int, *, seed: int) -> list[dict[str, object]]:
    """*num_questions* rows of each kind of question that needs several skills in sequence, of the test split, each text once."""
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    for make in multistep.KINDS:
        rng, count = Random(f"{seed}:{make.__name__}"), 0
        while count < num_questions:
            found = make(rng, "test")
            if found.text in seen:
                continue
            seen.add(found.text)
            rows.append(
                {
                    "id": f"multistep-{len(rows):03}",
                    "question": found.text,
                    "answer": found.answer,
                    "category": multistep.MULTISTEP,
                    "skills": [found.kind],
                    "grader": "exact_case",
                }
            )
            count += 1
    return rows


def _row(question_id: str, question: Question, *, mark: bool) -> dict[str, object]:
    """*question* as a labelled question; with *mark* it also says when it is tricky, a key of the test set's own."""
    row: dict[str, object] = {
        "id": question_id,
        "question": question.text,
        "answer": question.answer,
        "category": question.domain,
        "skills": [question.skill],
        "grader": "exact_case",
    }
    if question.history:
        row["history"] = [
            {"role": role, "content": content}
            for turn in question.history
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
    if mark and question.tricky:
        row["tricky"] = True
    return row


def main() -> None:
    seen: set[str] = set()
    for name, count, seed in (("test", NUM_TEST, 21), ("validation", NUM_VALIDATION, 22)):
        split: Split = "test" if name == "test" else "validation"
        rows = draw_split(split, count, seed=seed, seen=seen)
        path: Path = FOLDER / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        print(f"{path.name}: {len(rows)} questions")
    rows = draw_multistep(NUM_MULTISTEP, seed=23)
    (FOLDER / "multistep.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"multistep.jsonl: {len(rows)} questions")


if __name__ == "__main__":
    main()
