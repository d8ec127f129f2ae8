"""How long the learned routers take to fit and to decide, and what that takes of memory: `python benchmarks/routers_fit.py`.

Questions and outcomes are made up (texts of public-benchmark lengths around so many topics, experts with strengths by topic), the vectors
too: encoding is not part of it. Each router is fitted in a process of its own, so that the memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features
from routers.learned.catalogue import ESTIMATORS, estimator
from routers.one_core import one_core

_DIMENSIONS = 384
_NUM_TOPICS = 14
_WORDS = 2_000
_NUM_DECISIONS = 300
_COLUMNS = ("fit s", "CPU s", "fit MiB", "all MiB", "decide p50", "p95 ms", "explain p50", "p95 ms")
_WIDTHS = (9, 9, 9, 9, 12, 9, 13, 9)
_DIGITS = (1, 1, 0, 0, 2, 2, 2, 2)


def problem(num_questions: int, num_experts: int, *, missing: float = 0.0, seed: int = 0) -> tuple[Features, OutcomeTable]:
    """Made-up questions and what experts score on them; a share *missing* of the outcomes was not measured."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(_NUM_TOPICS, size=num_questions)
    centres = rng.standard_normal((2, _NUM_TOPICS, _DIMENSIONS))
    views = []
    for centre in centres:
        view = (centre[topics] + 1.5 * rng.standard_normal((num_questions, _DIMENSIONS))).astype(np.float32)
        views.append(view / np.linalg.norm(view, axis=1, keepdims=True))
    words = np.array(["".join(chr(97 + letter) for letter in rng.integers(26, size=length)) for length in rng.integers(2, 10, size=_WORDS)])
    lengths = rng.lognormal(3.2, 0.9, size=num_questions).astype(int).clip(3, 400)
    texts = tuple(" ".join(words[rng.integers(_WORDS, size=length)]) + "?" for length in lengths)
    strength = rng.uniform(0.2, 0.9, size=(_NUM_TOPICS, num_experts))
    scores = (rng.random((num_questions, num_experts)) < strength[topics]).astype(np.float32)
    if missing:
        scores[rng.random(scores.shape) < missing] = np.nan
    table = OutcomeTable(
        questions=texts,
        expert_ids=tuple(f"expert-{number:02d}" for number in range(num_experts)),
        scores=floats(scores.ravel().tolist()),
        categories=tuple(f"topic {topic}" for topic in topics.tolist()),
        skills=tuple((f"topic {topic}",) for topic in topics.tolist()),
    )
    return Features(texts, views[0], views[1]), table


def measured(name: str, num_questions: int, num_experts: int, missing: float) -> dict[str, Any]:
    """Fit *name* and let it decide; seconds, milliseconds, MiB."""
    features, table = problem(num_questions, num_experts, missing=missing)
    before = _peak_mib()
    began, cpu = time.perf_counter(), time.process_time()
    with one_core():  # as the service fits
        model = estimator(name).fit(features, table, seed=0)
    took, cpu_took = time.perf_counter() - began, time.process_time() - cpu
    grown = _peak_mib() - before
    row: dict[str, Any] = {"router": name, "fit_s": took, "fit_cpu_s": cpu_took, "fit_mib": grown, "process_mib": _peak_mib()}
    for what in ("predict", "explain"):
        seconds = []
        for number in range(_NUM_DECISIONS):
            one = features.rows([number])
            at = time.perf_counter()
            if what == "predict":
                model.predict(one)
            else:
                model.explain(one, 0)
            seconds.append(time.perf_counter() - at)
        row[f"{what}_p50_ms"], row[f"{what}_p95_ms"] = (1000 * float(np.percentile(seconds, share)) for share in (50, 95))
    return row


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _in_child(connection: Any, name: str, num_questions: int, num_experts: int, missing: float) -> None:
    connection.send(measured(name, num_questions, num_experts, missing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--missing", type=float, default=0.0, help="share of the outcomes that were not measured")
    parser.add_argument("--router", action="append", choices=sorted(ESTIMATORS), help="default: all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    rows = []
    if not options.json:
        print(f"{options.questions} questions, {options.experts} experts, {options.missing:.0%} of the outcomes missing")
        print(f"{'router':<12}" + "".join(f"{name:>{width}}" for name, width in zip(_COLUMNS, _WIDTHS, strict=True)))
    for name in options.router or ESTIMATORS:
        receiver, sender = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_in_child, args=(sender, name, options.questions, options.experts, options.missing))
        child.start()
        sender.close()
        try:
            row = receiver.recv()
        except EOFError:
            row = {"router": name, "failed": True}
        child.join()
        rows.append(row)
        if not options.json:
            print(_line(row), flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))


def _line(row: dict[str, Any]) -> str:
    if row.get("failed"):
        return f"{row['router']:<12} failed"
    name, *values = row.values()
    return f"{name:<12}" + "".join(f"{value:>{width}.{digits}f}" for value, width, digits in zip(values, _WIDTHS, _DIGITS, strict=True))


if __name__ == "__main__":
    main()
