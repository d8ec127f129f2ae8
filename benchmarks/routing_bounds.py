"""What bounds a router on a table of outcomes: ``python benchmarks/routing_bounds.py outcomes.jsonl [--seeds 3] [--router blend]``.

Three tables. **What there is to win**: the best single expert, the best expert of each task, the oracle, and how often exactly one
expert is right. **Luck**: what a router could reach that knows each question's true probabilities, by a latent model of the outcomes
(``benchmarks/latent_outcomes.py``); its simulated best single expert and oracle stand beside the real ones, since a model that misses
those is not to be believed. **The learning curve**: the router fitted on parts of the training questions, in the folds of ``consilium
eval routing``, and a power law through it; what lies beyond all questions is extrapolated and says so.

Only questions on which every expert was measured count, and duplicates are dropped as in an evaluation, with which encodings are
shared (``CONSILIUM_DATA_DIR``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from api.bootstrap import learned_family
from api.cli.eval_routing import CACHE_FOLDER
from api.settings import load_settings
from benchmarks.latent_outcomes import Ceiling, Floats, Ints, ceiling, fit, held_out
from domain.outcomes import OutcomeTable
from evaluation.array_cache import ArrayCache
from evaluation.comparison.metrics import gap_closed
from evaluation.outcomes.duplicates import drop_duplicates
from evaluation.outcomes.files import read_outcomes
from evaluation.outcomes.splits import Split, k_folds

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
NUM_FOLDS = 5
RANKS = (0, 1, 2, 3)
SPREADS = (1.0, 2.0)
"""Priors of a task's loadings around the expert's own, in logits."""
TIMES = (2, 5, 10)
"""How many more questions the power law is asked about."""
_EXPONENTS = np.arange(0.05, 1.51, 0.01)


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """``limit - scale · n ** -exponent``."""

    limit: float
    scale: float
    exponent: float
    rms: float
    """Root of the mean squared distance of the points."""

    def __call__(self, num: float) -> float:
        return float(self.limit - self.scale * num**-self.exponent)


@dataclass(frozen=True, slots=True)
class Point:
    """A place of the learning curve."""

    share: float
    num_train: int
    closed: tuple[float, ...]
    """Share of the gap, a fold seed each."""


def power_law(points: Sequence[tuple[float, float]]) -> PowerLaw:
    """Least squares through *points* (n, value), over a grid of exponents; a curve that falls is taken for flat."""
    num, value = np.array(points, np.float64).T
    best: PowerLaw | None = None
    for exponent in _EXPONENTS.tolist():
        falling = num**-exponent
        design = np.stack([np.ones_like(num), -falling], axis=1)
        limit, scale = np.linalg.lstsq(design, value, rcond=None)[0]
        if scale < 0:
            limit, scale = value.mean(), 0.0
        rms = float(np.sqrt(np.square(limit - scale * falling - value).mean()))
        if best is None or rms < best.rms:
            best = PowerLaw(float(limit), float(scale), exponent, rms)
    assert best is not None
    return best


def closed(chosen: Floats, scores: Floats, splits: Sequence[Split]) -> float:
    """Share of the gap, the best single expert being that of each split's training questions."""
    single = np.concatenate([scores[list(s.test), int(scores[list(s.train)].mean(axis=0).argmax())] for s in splits])
    return gap_closed(float(chosen.mean()), float(single.mean()), float(scores.max(axis=1).mean()))


def best_of_task(scores: Floats, task: Ints, splits: Sequence[Split]) -> Floats:
    """(N,) what the training questions' best expert of each task scores, in the order of the splits."""
    found = []
    for split in splits:
        train, test = np.array(split.train), np.array(split.test)
        sums = np.zeros((int(task.max()) + 1, scores.shape[1]))
        np.add.at(sums, task[train], scores[train])
        found.append(scores[test, sums.argmax(axis=1)[task[test]]])
    return np.concatenate(found)


def learning_curve(
    family: Any, features: Any, table: OutcomeTable, scores: Floats, *, router: str, seeds: int, told: Callable[[str], None]
) -> list[Point]:
    """*router* fitted on nested random parts of the training questions of every fold."""
    found: dict[float, list[float]] = {share: [] for share in SHARES}
    sizes: dict[float, int] = {}
    for seed in range(seeds):
        splits = k_folds(len(table), NUM_FOLDS, seed=seed)
        for share in SHARES:
            chosen = []
            for split in splits:
                told(f"seed {seed}, {share:.0%}, {split.name}")
                order = np.random.default_rng(seed).permutation(split.train)
                part = sorted(int(n) for n in order[: max(1, round(share * len(order)))])
                sizes[share] = len(part)
                model = family.fit(router, family.select(features, part), table.rows(part), seed=seed)
                predicted = model.predict(family.select(features, split.test))
                chosen.append(scores[list(split.test), predicted.argmax(axis=1)])
            found[share].append(closed(np.concatenate(chosen), scores, splits))
    return [Point(share, sizes[share], tuple(found[share])) for share in SHARES]


def luck(scores: Floats, task: Ints, *, told: Callable[[str], None]) -> dict[tuple[int, float], tuple[float, Ceiling]]:
    """By rank and prior: bits per outcome of unseen questions, and the ceiling of the model that is fitted on all."""
    num_tasks = int(task.max()) + 1
    shares = np.bincount(task, minlength=num_tasks) / len(task)
    folds = [(np.array(s.train), np.array(s.test)) for s in k_folds(len(scores), NUM_FOLDS, seed=0)]
    found = {}
    for rank in RANKS:
        for spread in SPREADS if rank else SPREADS[:1]:
            told(f"latent model of rank {rank}")
            bits = held_out(scores, task, num_tasks, rank=rank, spread=spread, folds=folds)
            found[rank, spread] = bits, ceiling(fit(scores, task, num_tasks, rank=rank, spread=spread), shares)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--router", default="blend")
    parser.add_argument("--seeds", type=int, default=3, help="orders of the folds")
    parser.add_argument("--no-curve", action="store_true", help="leave out the learning curve, which fits the router 90 times")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console, began = Console(width=140), time.monotonic()
    whole = read_outcomes(options.outcomes).table
    table = whole.rows(drop_duplicates(whole.questions).kept)
    scores = np.array(table.scores, np.float64).reshape(len(table), -1)
    table = table.rows(np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist())
    scores = np.array(table.scores, np.float64).reshape(len(table), -1)
    names = sorted({category or "" for category in table.categories} or {""})
    task = np.array([names.index(category or "") for category in table.categories or ("",) * len(table)], np.int64)
    result: dict[str, Any] = {"questions": len(table)}
    with console.status("reading") as status:
        told = status.update
        seeds = range(options.seeds)
        splits = [k_folds(len(table), NUM_FOLDS, seed=seed) for seed in seeds]
        by_task = float(np.mean([closed(best_of_task(scores, task, s), scores, s) for s in splits]))
        by_luck = luck(scores, task, told=told)
        points: list[Point] = []
        if not options.no_curve:
            settings = load_settings()
            family = learned_family(settings, ArrayCache(settings.data_dir / "cache" / CACHE_FOLDER))
            features = family.features(table.questions, lambda done, of: told(f"encoding {done} of {of}"))
            points = learning_curve(family, features, table, scores, router=options.router, seeds=options.seeds, told=told)
    result |= _show_winnings(console, scores, by_task)
    result["luck"] = _show_luck(console, by_luck, scores)
    if points:
        result["curve"] = _show_curve(console, points, options.router)
    console.print(f"{time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def _show_winnings(console: Console, scores: Floats, by_task: float) -> dict[str, Any]:
    right = (scores > 0.5).sum(axis=1)
    single, oracle = float(scores.mean(axis=0).max()), float(scores.max(axis=1).mean())
    one, best = float((right == 1).mean()), int(scores.mean(axis=0).argmax())
    saved = (scores[:, best] <= 0.5) & (right > 0)
    alone = float((right[saved] == 1).mean()) if saved.any() else float("nan")
    table = Table("", "", title=f"What there is to win: {len(scores)} questions, {scores.shape[1]} experts")
    table.add_row("best single expert", f"{single:.4f}")
    table.add_row("oracle", f"{oracle:.4f}")
    table.add_row("best expert of the question's task, told the task: closes", f"{by_task:.3f}")
    table.add_row("questions that nobody has right", f"{float((right == 0).mean()):.3f}")
    table.add_row("… that exactly one has", f"{one:.3f}")
    table.add_row("of what the oracle adds to the best single: that one expert alone has", f"{alone:.3f}")
    console.print(table)
    return {"best_single": single, "oracle": oracle, "task_closes": by_task, "one_right": one, "alone_of_gap": alone}


def _show_luck(console: Console, found: dict[tuple[int, float], tuple[float, Ceiling]], scores: Floats) -> list[dict[str, Any]]:
    table = Table("rank", "prior", "bits of unseen", "best single", "oracle", "one right", "task closes", "true probabilities close")
    table.title = "Luck: tables drawn from a latent model, beside the real one"
    right = (scores > 0.5).sum(axis=1)
    table.add_row(
        "real", "", "", f"{scores.mean(axis=0).max():.4f}", f"{scores.max(axis=1).mean():.4f}", f"{float((right == 1).mean()):.3f}", "", ""
    )
    likeliest = max(found, key=lambda key: found[key][0])
    for (rank, spread), (bits, drawn) in found.items():
        table.add_row(
            str(rank),
            f"{spread:g}" if rank else "",
            f"{bits:.4f}",
            f"{drawn.best_single:.4f}",
            f"{drawn.oracle:.4f}",
            f"{drawn.one_right:.3f}",
            f"{drawn.closed(drawn.perfect_task):.3f}",
            f"{drawn.closed(drawn.true_probabilities):.3f}",
            style="bold" if (rank, spread) == likeliest else None,
        )
    console.print(table)
    return [{"rank": rank, "prior": spread, "bits": bits, **asdict(drawn)} for (rank, spread), (bits, drawn) in found.items()]


def _show_curve(console: Console, points: Sequence[Point], router: str) -> dict[str, Any]:
    law = power_law([(point.num_train, value) for point in points for value in point.closed])
    table = Table("share", "questions", "gap closed, mean", "by fold seed", "power law", title=f"Learning curve of {router}")
    for point in points:
        seeds = " ".join(f"{value:.3f}" for value in point.closed)
        table.add_row(f"{point.share:.0%}", str(point.num_train), f"{np.mean(point.closed):.3f}", seeds, f"{law(point.num_train):.3f}")
    for times in TIMES:
        num = times * points[-1].num_train
        table.add_row(f"× {times}", str(num), "extrapolated", "", f"{law(num):.3f}")
    console.print(table)
    console.print(f"power law: {law.limit:.3f} − {law.scale:.3f} · n^−{law.exponent:.2f}, off by {law.rms:.3f} (root mean square)")
    return {"points": [asdict(point) for point in points], "law": asdict(law)}


if __name__ == "__main__":
    main()
