"""What the trained experts answer to training questions: the material that the aggregator and the judge learn from.

``python -m zoo.training.candidates`` writes ``zoo/cache/candidates.jsonl`` (not kept in the
repository; it is made again in some minutes).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from zoo.questions import GENERATORS, multistep
from zoo.questions.base import Question
from zoo.training.data import prompt_of
from zoo.training.evaluate import answer_of, complete
from zoo.training.package import load_served
from zoo.training.recipes import RECIPES
from zoo.training.tokenizer import build_tokenizer

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
CACHE = Path(__file__).resolve().parent.parent / "cache" / "candidates.jsonl"
_NUM_STRANGERS = 2
"""Experts of other domains that answer each question, besides its own specialist and the generalist."""
_SEVERAL_STEPS_SHARE = 1 / 3
"""Of all questions, those that need several steps: their best single experts answer them, and are mostly wrong."""
_HELPERS = ("aggregator", "planner", "judge")
"""They answer no questions of their own."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with what some experts answered (expert name to answer, reasoning removed)."""

    question: Question
    answers: dict[str, str]


def collect(num_questions: int, *, weights: Path = WEIGHTS, target: Path = CACHE, seed: int = 5) -> None:
    """Ask the experts *num_questions* questions of the training split and write their answers to *target*."""
    rng = Random(seed)
    generators = tuple(GENERATORS.values())
    experts = [name for name in RECIPES if name not in _HELPERS and (weights / name).exists()]
    questions: list[Question] = []
    asked: dict[str, list[int]] = defaultdict(list)
    for number in range(num_questions):
        if rng.random() < _SEVERAL_STEPS_SHARE:
            several = multistep.planned(rng, "train")
            questions.append(several.question)
            own = {step.expert for step in several.steps}
        else:
            questions.append(rng.choice(generators)(rng, "train"))
            own = {questions[-1].domain}
        strangers = rng.sample([expert for expert in experts if expert not in {*own, "generalist"}], _NUM_STRANGERS)
        for expert in sorted({*own, "generalist", *strangers}):
            asked[expert].append(number)

    answers: list[dict[str, str]] = [{} for _ in questions]
    tokenizer = build_tokenizer(512)
    for expert, numbers in asked.items():
        completions = complete(load_served(weights, expert), tokenizer, [prompt_of(questions[n]) for n in numbers])
        for number, completion in zip(numbers, completions, strict=True):
            answers[number][expert] = answer_of(completion)
        right = sum(answers[n][expert] == questions[n].answer for n in numbers)
        print(f"{expert}: {len(numbers)} answers, {right / len(numbers):.1%} right", flush=True)

    target.parent.mkdir(exist_ok=True)
    with target.open("w") as file:
        for question, given in zip(questions, answers, strict=True):
            row = {"text": question.text, "answer": question.answer, "domain": question.domain, "skill": question.skill,
                   "history": question.history, "answers": given}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def load(path: Path = CACHE) -> list[Answered]:
    """What ``collect`` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Answered(
            Question(row["text"], row["answer"], row["domain"], row["skill"], history=tuple((a, b) for a, b in row["history"])),
            row["answers"],
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=12_000)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    collect(arguments.questions, weights=arguments.weights)


if __name__ == "__main__":
    main()
