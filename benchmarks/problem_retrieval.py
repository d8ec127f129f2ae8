"""Whether the memory finds solved problems that are like a question: by words, by meaning, and by both.

    python benchmarks/problem_retrieval.py [--problems N] [--questions N] [--check]

The memory holds questions of ``zoo/validation.jsonl``, and is asked those of ``zoo/test.jsonl``. A problem that is found helps where it
needs the skill that the question needs. Of the five best, the share that does, for each way of ranking, and for each floor of similarity
how often something is found at all; then how long one search takes, encoding apart.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import numpy as np

from domain.memory import SolvedProblem
from domain.skills import LabelledQuestion
from evaluation.labelled import read_labelled_rows
from evaluation.report import Table
from orchestrator.modes.memory import OPTIONS
from routers.encoder import Encoder
from routers.problem_index import ProblemIndex
from routers.skill_space import Floats

ZOO = Path(__file__).resolve().parents[1] / "zoo"
FLOORS = (0.3, 0.4, 0.5, 0.6, 0.7)
BEST = 5
MAX_SEARCH_MS = 2.0
"""Of a search among a thousand problems: less than a request's whole overhead may be."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    asked = parser.parse_args(arguments)
    draw = random.Random(1)
    known = _drawn(ZOO / "validation.jsonl", asked.problems, draw)
    questions = _drawn(ZOO / "test.jsonl", asked.questions, draw)
    encoder = Encoder.for_model("all-MiniLM-L6-v2", cache_dir=Path("data") / "cache")
    vectors, queries = (encoder.encode_now([question.question for question in some]) for some in (known, questions))
    skill_of = {str(number): set(question.labels) for number, question in enumerate(known)}
    problems = [
        SolvedProblem(str(number), "t", question.question, question.answer, "import", 0.0, sequence=number + 1)
        for number, question in enumerate(known)
    ]
    index = ProblemIndex(problems, vectors)

    def share_alike(found: Sequence[str], question: LabelledQuestion) -> float:
        return statistics.mean(bool(skill_of[one] & set(question.labels)) for one in found)

    ways: dict[str, list[float]] = {"words (BM25)": [], "meaning (cosine)": [], "both (reciprocal rank fusion)": []}
    for question, vector in zip(questions, queries, strict=True):
        ways["words (BM25)"].append(share_alike(_by_words(problems, question.question, index), question))
        ways["meaning (cosine)"].append(share_alike([str(row) for row in np.argsort(-(vectors @ vector))[:BEST]], question))
        fused = index.search(question.question, vector, limit=BEST, min_similarity=-1.0)
        ways["both (reciprocal rank fusion)"].append(share_alike([one.problem_id for one in fused], question))
    ranked = tuple((name, _percent(statistics.mean(shares))) for name, shares in ways.items())
    title = f"{len(problems)} problems, {len(questions)} questions"
    print(Table(title, ("ranked by", f"of the {BEST} best, % that need the same skill"), ranked).plain(), end="\n\n")
    floors = []
    for floor in FLOORS:
        found = [index.search(q.question, v, limit=BEST, min_similarity=floor) for q, v in zip(questions, queries, strict=True)]
        alike = [share_alike([s.problem_id for s in some], q) for some, q in zip(found, questions, strict=True) if some]
        shown, share = statistics.mean(map(len, found)), sum(map(bool, found)) / len(found)
        floors.append((f"{floor:g}", _percent(share), f"{shown:.1f}", _percent(statistics.mean(alike or [0.0]))))
    columns = ("smallest cosine", "% of questions with any", "shown on average", "% that need the same skill")
    print(Table("", columns, tuple(floors)).plain(), end="\n\n")
    search_ms = _search_ms(index, [question.question for question in questions], queries)
    print(f"one search: {search_ms:.2f} ms (median)\n")
    by_words, _, by_both = (statistics.mean(shares) for shares in ways.values())
    reached = (
        (by_both >= by_words, "both find at least as much as words alone"),
        (search_ms <= MAX_SEARCH_MS, f"a search takes at most {MAX_SEARCH_MS:g} ms"),
    )
    for is_reached, what in reached:
        print(f"{'reached' if is_reached else 'MISSED'}: {what}")
    print(f"(strategies use {OPTIONS['min_similarity'].default} where they do not say otherwise)")
    return int(asked.check and not all(is_reached for is_reached, _ in reached))


def _drawn(file: Path, num: int, draw: random.Random) -> list[LabelledQuestion]:
    questions = [question for question, _ in read_labelled_rows(file, also=("tricky",)) if not question.history]
    return draw.sample(questions, min(num, len(questions)))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _by_words(problems: Sequence[SolvedProblem], question: str, index: ProblemIndex) -> list[str]:
    scores = index.shared_words(question)
    return [problems[row].id for row in np.argsort(-scores, kind="stable")[:BEST]]


def _search_ms(index: ProblemIndex, texts: Sequence[str], vectors: Floats) -> float:
    took = []
    for text, vector in zip(texts, vectors, strict=True):
        began = time.perf_counter()
        index.search(text, vector, limit=BEST, min_similarity=float(str(OPTIONS["min_similarity"].default)))
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


if __name__ == "__main__":
    sys.exit(main())
