"""What a panel's votes are worth on real outcomes: ``python benchmarks/panel_votes.py outcomes.jsonl [--orders 3] [--draws 3] [--check]``.

The skill router sends every question to *k* experts, measured on the questions of the other folds, and the service's own aggregators decide
between the same candidates. Beside them stand, at as many calls, majorities of *k* experts drawn at random and of the *k* that are best on
average; and at one call the expert that was routed first, and the one that is best on average.

A table of outcomes has no answers: it tells who was wrong, not with what. So everything is measured under **assumptions** of how often two
experts that are wrong say the same. ``1``: always, no vote can fare worse. ``0``: never, none can fare better. Between them a wrong expert
gives the question's one tempting wrong answer, or one of its own. 0.6 is what was measured on real models and multiple choice (Kim, Garg,
Peng and Garg 2025, Correlated Errors in Large Language Models, arXiv 2506.07962). ``choices``: multiple choice only, every wrong option as
likely, which is less than real models agree.

Only tasks with short answers count: nobody votes on programs. Every question is tested once in each of several orders of five folds; its
worth is the mean over orders and draws, and ways are compared on the same questions: mean difference over its standard error, which for a
single draw is McNemar's test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.routing import router_for
from domain.chat import ChatRequest, Choice
from domain.experts import Backend, ExpertCard
from domain.outcomes import OutcomeTable
from domain.plan import Candidate
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from domain.skills import LabelledQuestion, SkillCount, SkillProfile
from domain.strategy import Strategy
from evaluation.comparison.agreement import agreement
from evaluation.comparison.metrics import bootstrap_means, interval
from evaluation.outcomes.duplicates import drop_duplicates
from evaluation.outcomes.files import read_outcomes
from evaluation.outcomes.splits import Split, k_folds
from orchestrator.aggregation.base import AggregationContext, Aggregator, Chosen
from orchestrator.aggregation.vote import Vote
from orchestrator.aggregation.weighted_vote import ALIKE, POSTERIOR, WeightedVote
from orchestrator.posteriors import Posteriors
from routers.encoder import DEFAULT_MODEL, Encoder

CHOICES = {"mmlu": 4, "arc_challenge": 4, "openbook_qa": 4, "commonsense_qa": 5}
"""Options of a question, by task: what these sets are known to have, the table does not tell."""
NO_VOTE = frozenset({"mbpp", "human_eval", "commongen"})
"""Tasks whose right answers are programs or sentences, of which no two are alike."""
SIZES = (3, 5)
NUM_FOLDS = 5
LEVELS = ("1", "0.8", "0.6", "0.4", "0.2", "0")
"""How often two wrong experts agree."""
REAL = "0.6"
UNIFORM = "choices"
RIGHT = "0"
"""What experts say who are right; the others say another number."""
MAX_P = 0.05

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Routed:
    """One test question and every expert's place for it."""

    question: int
    decision: RoutingDecision
    snapshot: RegistrySnapshot
    best_overall: tuple[str, ...]
    """Expert ids by their mean on the training questions, best first."""
    known: dict[Any, str] = field(default_factory=dict)
    """What was decided of this question, by way and by who agrees with whom: aggregators look at nothing else."""


@dataclass(frozen=True, slots=True)
class Fold:
    train: tuple[int, ...]
    tests: tuple[Routed, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One way beside another on the same questions, in points."""

    accuracy: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    p: float
    """Of no difference, two-sided."""


def profiles_of(scores: Floats, task: Sequence[str], expert_ids: Sequence[str], train: Sequence[int]) -> dict[str, SkillProfile]:
    """What measuring on the questions *train* would have found of each expert; *scores* is (N, E), a question's skill is its task."""
    found, numbers = {}, np.array(train)
    labels = np.array(task)[numbers]
    for column, expert_id in enumerate(expert_ids):
        right = scores[numbers, column] > 0.5
        counts = {
            str(name): SkillCount(int((labels == name).sum()), int(right[labels == name].sum())) for name in dict.fromkeys(labels.tolist())
        }
        found[expert_id] = SkillProfile(expert_id, counts, sum(counts.values(), SkillCount()))
    return found


async def routed(encoder: Encoder, table: OutcomeTable, split: Split, *, version: int) -> Fold:
    """Every test question of *split*, by the skill router as it is shipped, but that no question is refused."""
    task = [category or "" for category in table.categories]
    experts = {name: ExpertCard(name, Backend.OPENAI, name) for name in table.expert_ids}
    profiles = profiles_of(matrix(table), task, table.expert_ids, split.train)
    snapshot = RegistrySnapshot(version, version, experts, {}, dict.fromkeys(sorted(set(task)), ""), profiles, {})
    labelled = [LabelledQuestion(str(n), table.questions[n], RIGHT, task[n], (task[n],)) for n in split.train]
    router = await router_for(encoder, snapshot, labelled)
    best = tuple(sorted(profiles, key=lambda name: -profiles[name].overall.accuracy()))
    tests, rule = [], PickRule("top_k", len(experts))
    for number in split.test:
        request = ChatRequest("benchmark", "auto", ({"role": "user", "content": table.questions[number]},))
        decision = await router.route(RoutingQuery(request, list(experts.values()), rule, 0, options={"floor": -1.0}), snapshot)
        tests.append(Routed(number, decision, snapshot, best))
    return Fold(split.train, tuple(tests))


def wrong_answers(assumption: str, num_options: Ints, num_experts: int, *, seed: int) -> Ints:
    """(N, E) what each expert says to each question if it is wrong, as a number from 1. *num_options* (N,) counts for ``UNIFORM`` alone."""
    rng, shape = np.random.default_rng(seed), (len(num_options), num_experts)
    if assumption == UNIFORM:
        return 1 + np.floor(rng.random(shape) * (num_options[:, None] - 1)).astype(np.int64)
    # Two give the tempting answer with the square of the chance that one does.
    tempted = rng.random(shape) < math.sqrt(float(assumption))
    return np.where(tempted, 1, np.arange(2, num_experts + 2)).astype(np.int64)


def texts_of(scores: Floats, wrong: Ints) -> list[list[str]]:
    """(N, E) what is said."""
    return [[RIGHT if right else str(other) for right, other in zip(*row, strict=True)] for row in zip(scores > 0.5, wrong, strict=True)]


def panel(router: str, experts: Sequence[str]) -> RoutingDecision:
    """A panel that nobody was scored for: a tie goes to the first."""
    return RoutingDecision(router, tuple(experts), tuple(ScoredExpert(name, 0.5, True) for name in experts))


def answered(
    aggregator: Aggregator, options: Mapping[str, Any], decision: RoutingDecision, snapshot: RegistrySnapshot, said: Sequence[str]
) -> str:
    """What *aggregator* tells of the answers *said* by the selected experts."""
    request = ChatRequest("benchmark", "auto", ({"role": "user", "content": "?"},))
    context = AggregationContext(request, Strategy("benchmark"), decision, snapshot, lambda _: True, options=options)
    candidates = [
        Candidate(expert_id, (Choice({"role": "assistant", "content": text}),))
        for expert_id, text in zip(decision.selected, said, strict=True)
    ]
    verdict = aggregator.decide(context, candidates)
    assert isinstance(verdict, Chosen)
    return verdict.candidate.expert_id


def compared(worths: Mapping[str, Floats], *, to: str, seed: int = 0) -> dict[str, Compared]:
    """Ways by their worths (N,) of the same questions, each beside the way *to*; intervals are a bootstrap over questions, 95 %."""
    from scipy.stats import norm

    names = list(worths)
    values = np.stack([worths[name] for name in names], axis=1)
    apart = values - worths[to][:, None]
    samples = bootstrap_means(values, seed=seed)
    moved = samples - samples[:, [names.index(to)]]
    found = {}
    for column, name in enumerate(names):
        error = float(apart[:, column].std()) / math.sqrt(len(apart))
        points = float(apart[:, column].mean())
        p = float(2 * norm.sf(abs(points) / error)) if error else 1.0
        found[name] = Compared(
            100 * float(values[:, column].mean()), _percent(samples[:, column]), 100 * points, _percent(moved[:, column]), p
        )
    return found


def _percent(samples: npt.NDArray[np.floating]) -> tuple[float, float]:
    low, high = interval(samples)
    return 100 * low, 100 * high


WAYS: Mapping[str, tuple[Aggregator, Mapping[str, Any]]] = {
    "vote": (Vote(), {}),
    "measured-vote": (WeightedVote(), {"weights": "measured"}),
    "measured-vote, alike": (WeightedVote(), {"weights": "measured"}),
    "votes by score": (WeightedVote(), {"weights": "score"}),
    "btm": (WeightedVote(), {"weights": POSTERIOR}),
    "best on average, vote": (Vote(), {}),
    "by lot, vote": (Vote(), {}),
}
"""Of *k* calls."""
ALONE: Mapping[str, Callable[[Routed], str]] = {
    "routed first, alone": lambda one: one.decision.selected[0],
    "best on average, alone": lambda one: one.best_overall[0],
}

BEST = "any of the routed is right"


class Trial:
    """All ways on one table. Its answers are cells (question, worth), added up over orders and draws."""

    def __init__(self, table: OutcomeTable, orders: Sequence[Sequence[Fold]], *, draws: int) -> None:
        self._scores, self._expert_ids, self._orders, self._draws = matrix(table), table.expert_ids, orders, draws
        self._column = {name: column for column, name in enumerate(table.expert_ids)}
        self.num_options = np.array([CHOICES.get(category or "", 0) for category in table.categories], np.int64)

    def worths(self, assumption: str, k: int) -> dict[str, Floats]:
        """By way, (N,) in [0, 1]: how often each question is answered right; NaN where the assumption does not fit the question."""
        total = {name: np.zeros(len(self._scores)) for name in (*WAYS, *ALONE, BEST)}
        draws = 1 if assumption in {"0", "1"} else self._draws
        for draw in range(draws):
            said = texts_of(self._scores, wrong_answers(assumption, np.maximum(self.num_options, 2), len(self._expert_ids), seed=draw))
            for number, folds in enumerate(self._orders):
                for name, question, right in self._run(said, folds, k, seed=number):
                    total[name][question] += right
        fits = self.num_options > 0 if assumption == UNIFORM else np.ones(len(self._scores), bool)
        return {name: np.where(fits, worth / draws / len(self._orders), np.nan) for name, worth in total.items()}

    def _run(self, said: Sequence[Sequence[str]], folds: Sequence[Fold], k: int, *, seed: int) -> Iterator[tuple[str, int, bool]]:
        rng, posteriors = np.random.default_rng(seed), Posteriors()
        for fold in folds:
            train = list(fold.train)
            share = agreement([said[number] for number in train], self._scores[train]).share
            alike = max(ALIKE.minimum, 1.0 if share is None else round(share, 2))
            for one in fold.tests:
                lot = [self._expert_ids[place] for place in rng.permutation(len(self._expert_ids))[:k]]
                prior = posteriors.update("btm", {scored.expert_id: scored.score for scored in one.decision.considered})
                panels = {
                    "btm": one.decision.altered(selected=one.decision.selected[:k], detail={POSTERIOR: prior}),
                    "best on average, vote": panel("fixed", one.best_overall[:k]),
                    "by lot, vote": panel("random", lot),
                }
                routed = one.decision.altered(selected=one.decision.selected[:k])
                for name, (aggregator, options) in WAYS.items():
                    changed = {**options, "alike": alike} if name == "measured-vote, alike" else options
                    decision = panels.get(name, routed)
                    texts = [said[one.question][self._column[expert_id]] for expert_id in decision.selected]
                    groups = tuple(texts.index(text) for text in texts)
                    key = name, changed.get("alike"), decision.selected, groups
                    if key not in one.known:
                        spelled = [str(group) for group in groups]
                        one.known[key] = answered(aggregator, changed, decision, one.snapshot, spelled)
                    yield name, one.question, said[one.question][self._column[one.known[key]]] == RIGHT
                for name, who in ALONE.items():
                    yield name, one.question, said[one.question][self._column[who(one)]] == RIGHT
                yield BEST, one.question, RIGHT in [said[one.question][self._column[name]] for name in routed.selected]


def matrix(table: OutcomeTable) -> Floats:
    """(N, E)"""
    return np.array(table.scores, np.float64).reshape(len(table), -1)


def votable(path: Path) -> OutcomeTable:
    """The questions of *path* that experts can vote on: answered by all, with a short answer, each once."""
    whole = read_outcomes(path).table
    table = whole.rows(drop_duplicates(whole.questions).kept)
    if not table.categories:
        raise SystemExit(f"{path}: every question needs a task, which is what experts are measured on")
    table = table.rows([number for number, category in enumerate(table.categories) if category not in NO_VOTE])
    return table.rows(np.flatnonzero(~np.isnan(matrix(table)).any(axis=1)).tolist())


async def orders_of(table: OutcomeTable, num_orders: int, told: Callable[[str], None]) -> list[list[Fold]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(folder), num_threads=os.cpu_count() or 1)
        await encoder.start()
        for order in range(num_orders):
            folds = []
            for number, split in enumerate(k_folds(len(table), NUM_FOLDS, seed=order)):
                told(f"order {order + 1}, {split.name}")
                folds.append(await routed(encoder, table, split, version=1 + order * NUM_FOLDS + number))
            found.append(folds)
        await encoder.close()
    return found


def show(console: Console, assumption: str, k: int, worths: Mapping[str, Floats], kind: Ints) -> dict[str, Compared]:
    """Print one assumption and size. *kind* (N,) is 1 for multiple choice."""
    told = "wrong options are drawn alike, multiple choice only" if assumption == UNIFORM else f"two wrong experts agree in {assumption}"
    table = Table("way", "accuracy [95 %]", "choice", "open", "to majority vote [95 %]", "p", title=f"{k} calls; {told}")
    fits = ~np.isnan(worths["vote"])
    found = compared({name: worth[fits] for name, worth in worths.items()}, to="vote")
    for name, one in found.items():
        parts = [worths[name][fits & (kind == which)] for which in (1, 0)]
        cells = [f"{100 * part.mean():.1f}" if len(part) else "" for part in parts]
        against = ("", "") if name == "vote" else (f"{one.gain:+.2f} {_shown(one.gain_interval, '+.2f')}", f"{one.p:.2g}")
        table.add_row(name, f"{one.accuracy:.2f} {_shown(one.interval, '.1f')}", *cells, *against)
    console.print(table)
    return found


def _shown(ends: tuple[float, float], form: str) -> str:
    return f"[{ends[0]:{form}}, {ends[1]:{form}}]"


def main() -> int:
    parser = argparse.ArgumentParser(description="What a panel's votes are worth on measured outcomes.")
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--orders", type=int, default=3, help="orders of the folds")
    parser.add_argument("--draws", type=int, default=3, help="draws of the wrong answers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true", help="status 1 when measured-vote does not beat majority vote where it is said to")
    options = parser.parse_args()
    console = Console(width=140)
    table = votable(options.outcomes)
    orders = asyncio.run(orders_of(table, options.orders, lambda text: print(text, file=sys.stderr, flush=True)))
    trial = Trial(table, orders, draws=options.draws)
    told = f"{len(table)} questions, {len(table.expert_ids)} experts, {options.orders} orders of {NUM_FOLDS} folds"
    console.print(f"{told}, {options.draws} draws")
    found, missed = dict[str, Any](), list[str]()
    for k in SIZES:
        for assumption in (*LEVELS, UNIFORM):
            rows = show(console, assumption, k, trial.worths(assumption, k), (trial.num_options > 0).astype(np.int64))
            found[f"{k} calls, {assumption}"] = {name: asdict(one) for name, one in rows.items()}
            measured = rows["measured-vote"]
            if assumption in {"1", REAL}:
                ok = measured.gain > 0 and measured.p < MAX_P
                what = f"measured-vote beats majority vote at {k} calls where two wrong experts agree in {assumption}"
                console.print(f"{'reached' if ok else 'MISSED'}: {what}: {measured.gain:+.2f} points, p {measured.p:.2g}")
                missed += [] if ok else [what]
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
