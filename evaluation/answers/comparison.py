"""Strategies and baselines run for real on labelled questions: the work behind ``consilium eval answers``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.quoting import shortened
from domain.skills import LabelledQuestion
from evaluation.answers.asking import Asked, Questioner, Way
from evaluation.answers.judging import AskedJudge
from evaluation.answers.replies import Reply
from evaluation.comparison.arms import Arm, ArmKind, Floats, Measured, Unavailable
from evaluation.comparison.costs import PER_ANSWER
from evaluation.comparison.coverage import coverage_of
from evaluation.comparison.metrics import mean
from evaluation.comparison.oracle import oracle_gap
from evaluation.comparison.report import Report
from evaluation.comparison.summary import BEST_SINGLE, experts_by_category, group_tables, oracle_arm, random_arm, rows_of, single_arms
from evaluation.comparison.votes import majority
from evaluation.labelled import messages_of
from orchestrator.aggregation.prompts import fuse_messages

COMPUTE = "billion parameters × tokens"
USUAL_CALLS = 3
_MAX_ERROR = 200
"""Letters of an error that is told."""
_SAMPLE_SEED = 1_000_003
"""Samples differ by their number times this, plus the seed of the run."""


@dataclass(frozen=True, slots=True)
class ExpertInfo:
    """What a comparison needs to know of an expert's card."""

    id: str
    version: str
    """Of its content."""
    usd_per_prompt_token: float = 0.0
    usd_per_completion_token: float = 0.0
    parameters_b: float | None = None
    aggregation_prompt: str = "moa"


@dataclass(frozen=True, slots=True)
class AnswersOptions:
    """What is run beside the strategies."""

    calls: tuple[int, ...] = ()
    """Budgets of calls that the baselines with several calls get, each. None given: as many as each strategy makes on average, so that it
    is put beside its equals, and ``USUAL_CALLS`` where none makes several."""
    temperature: float = 0.7
    """Of repeated samples: at 0 they would all be the same."""
    seed: int = 0
    num_resamples: int = 1000


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which experts are best, known without the answers that are judged by it."""

    orders: tuple[tuple[int, ...], ...]
    """Per group of questions: columns, best first."""
    group_of: tuple[int, ...]
    """(N) which order each question goes by."""
    by: str
    """How they were ranked, for people."""

    def of(self, number: int) -> tuple[int, ...]:
        return self.orders[self.group_of[number]]


@dataclass(slots=True)
class AnswersComparison:
    """One run. ``execute`` may be called again: what was answered is in the questioner's log."""

    questioner: Questioner
    questions: Sequence[LabelledQuestion]
    experts: Sequence[ExpertInfo]
    """Candidates, each of whom is asked everything."""
    strategies: Sequence[Way]
    aggregator: ExpertInfo | None = None
    """Who fuses in the mixtures of agents."""
    others: Mapping[str, ExpertInfo] = field(default_factory=dict)
    """Every expert that a strategy may call, for its costs."""
    profile: Mapping[str, float] | None = None
    """Expert id to its measured accuracy on other questions; None lets halves of the questions rank for each other."""
    options: AnswersOptions = AnswersOptions()
    settings: Mapping[str, Any] = field(default_factory=dict)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    judge: AskedJudge | None = None
    """Whom the questioner's grader asks, to tell of it."""
    notes: tuple[str, ...] = ()

    async def execute(self) -> Report:
        """Ask what is not known yet, and judge. Raises ``InvalidRequest`` when there is nobody or nothing to ask."""
        if not self.questions or not self.experts:
            raise InvalidRequest("there is nothing to compare: it takes at least one question and one expert that may answer alone")
        for question in self.questions:
            self.questioner.grader.check(question)
        singles = [await self.questioner.ask_all(Way(expert.id, expert.id, expert.version), self.questions) for expert in self.experts]
        measured = self._measured(singles)
        ranking = self._ranking(measured.scores)
        arms, failures = [], [_failures(expert.id, found) for expert, found in zip(self.experts, singles, strict=True)]
        for way in self.strategies:
            asked = await self.questioner.ask_all(way, self.questions)
            failures.append(_failures(way.name, asked))
            final = [one.reply for one in asked]
            arms.append(
                self._arm(way.name, "strategy", [[reply] for reply in final], measured, final=final, scores=[one.score for one in asked])
            )
        best = np.array([ranking.of(number)[0] for number in range(len(self.questions))])
        arms.append(measured.choice(BEST_SINGLE, best, kind="baseline", note=f"{self._best_names(ranking)}: {ranking.by}"))
        arms += [random_arm(measured), oracle_arm(measured)]
        budgets = self._budgets(arms)
        extra, missing = await self._with_calls(budgets, singles, ranking, measured)
        arms += extra
        alone = [
            replace(arm, num_failed=sum(asked.reply.error is not None for asked in found))
            for arm, found in zip(single_arms(measured), singles, strict=True)
        ]
        shown = [arm for arm in arms if arm.kind == "strategy" or arm.name == BEST_SINGLE]
        judged = None if self.judge is None else self.judge.judged(expert.id for expert in self.experts)
        return Report(
            title="Strategies on real answers",
            settings={
                **self.settings,
                "calls": budgets,
                "temperature": self.options.temperature,
                "seed": self.options.seed,
            },
            num_questions=len(self.questions),
            expert_ids=measured.expert_ids,
            unit=measured.unit,
            best_single=self._best_names(ranking),
            rows=rows_of([*arms, *alone], measured, seed=self.options.seed, num_resamples=self.options.num_resamples),
            unavailable=missing,
            oracle_gaps=tuple(oracle_gap(arm, measured) for arm in shown),
            coverage=coverage_of(measured.expert_ids, measured.scores),
            groups=group_tables(arms, measured),
            confusions=tuple(filter(None, (experts_by_category(arm, measured) for arm in arms if arm.kind == "strategy"))),
            duplicates=self.duplicates,
            judged=judged,
            notes=(*self.notes, *(() if judged is None else judged.told()), *filter(None, failures)),
        )

    def _measured(self, singles: Sequence[Sequence[Asked]]) -> Measured:
        unit = self._unit()
        return Measured(
            expert_ids=tuple(expert.id for expert in self.experts),
            scores=np.array([[asked.score for asked in found] for found in singles]).T,
            costs=np.array([[self._cost([asked.reply], unit) for asked in found] for found in singles]).T if unit else None,
            latency_ms=np.array([[asked.reply.latency_ms for asked in found] for found in singles]).T,
            unit=unit,
            groups={
                name: groups
                for name, groups in (
                    ("category", tuple((q.category,) if q.category else () for q in self.questions)),
                    ("skill", tuple(q.skills for q in self.questions)),
                )
                if any(groups)
            },
        )

    def _ranking(self, scores: Floats) -> Ranking:
        columns = range(len(self.experts))
        if self.profile is not None:
            known = self.profile
            order = tuple(sorted(columns, key=lambda c: -known.get(self.experts[c].id, 0.0)))
            return Ranking((order,), (0,) * len(self.questions), "best in the registry's profiles")
        shuffled = np.random.default_rng(self.options.seed).permutation(len(self.questions))
        in_second = np.zeros(len(self.questions), bool)
        in_second[shuffled[: len(shuffled) // 2]] = True
        orders = []
        for half in (False, True):
            other = scores[in_second != half]
            means = [mean(column) for column in (other if len(other) else scores).T]
            # An expert that nobody could judge comes last.
            orders.append(tuple(int(c) for c in np.argsort(-np.nan_to_num(means, nan=-1.0), kind="stable")))
        return Ranking(tuple(orders), tuple(int(half) for half in in_second), "best on the other half of the questions")

    def _best_names(self, ranking: Ranking) -> str:
        return ", ".join(dict.fromkeys(self.experts[order[0]].id for order in ranking.orders))

    def _budgets(self, arms: Sequence[Arm]) -> list[int]:
        if self.options.calls:
            return sorted(set(self.options.calls))
        several = {round(float(np.mean(arm.calls))) for arm in arms if arm.kind == "strategy"} - {0, 1}
        return sorted(several) or [USUAL_CALLS]

    async def _with_calls(
        self, budgets: Sequence[int], singles: Sequence[Sequence[Asked]], ranking: Ranking, measured: Measured
    ) -> tuple[list[Arm], tuple[Unavailable, ...]]:
        """The baselines that make several calls, at every budget of calls."""
        arms, missing, numbers = list[Arm](), dict[str, Unavailable](), range(len(self.questions))
        for budget in budgets:
            samples = await self._samples(budget, ranking)
            for name, given in (
                (f"majority vote of {budget}", [[singles[c][n].reply for c in ranking.of(n)[:budget]] for n in numbers]),
                (f"self-consistency × {budget}", samples),
            ):
                if len(given[0]) < budget:
                    missing[name] = Unavailable(name, f"there are only {len(self.experts)} experts")
                    continue
                arms.append(await self._voted(name, given, measured))
            for name, given in (
                (f"self-MoA, {budget} calls", [replies[: budget - 1] for replies in samples]),
                (
                    f"fixed top-{budget - 1} MoA, {budget} calls",
                    [[singles[c][n].reply for c in ranking.of(n)[: budget - 1]] for n in numbers],
                ),
            ):
                if self.aggregator is None:
                    missing[name] = Unavailable(name, "no expert has the role of an aggregator")
                elif budget < 3 or len(given[0]) < budget - 1:
                    missing[name] = Unavailable(name, "it takes two answers and a synthesis at least, and as many experts")
                else:
                    arms.append(await self._fused(name, given, self.aggregator, measured))
        return arms, tuple(missing.values())

    async def _samples(self, num: int, ranking: Ranking) -> list[list[Reply]]:
        """*num* sampled answers of the best single expert to each question."""
        samples: list[list[Reply]] = [[] for _ in self.questions]
        for column in dict.fromkeys(order[0] for order in ranking.orders):
            numbers = [n for n in range(len(self.questions)) if ranking.of(n)[0] == column]
            expert = self.experts[column]
            for sample in range(num):
                way = Way(f"{expert.id}, sample {sample + 1}", expert.id, expert.version, {"temperature": self.options.temperature})
                seed = (self.options.seed + sample * _SAMPLE_SEED) % 2**31
                for n, asked in zip(
                    numbers, await self.questioner.ask_all(way, [self.questions[n] for n in numbers], seed=seed), strict=True
                ):
                    samples[n].append(asked.reply)
        return samples

    async def _voted(self, name: str, given: Sequence[Sequence[Reply]], measured: Measured) -> Arm:
        elected = []
        for replies in given:
            winner = majority([None if reply.error else reply.text for reply in replies])
            elected.append(Reply(error="nobody answered") if winner is None else replies[winner])
        return await self._graded(name, elected, given, measured)

    async def _fused(self, name: str, given: Sequence[Sequence[Reply]], aggregator: ExpertInfo, measured: Measured) -> Arm:
        """A synthesis by one aggregator for all mixtures: they differ in what it reads, not in who reads."""
        messages = [
            fuse_messages(messages_of(question), [reply.text for reply in replies if reply.error is None], aggregator.aggregation_prompt)
            for question, replies in zip(self.questions, given, strict=True)
        ]
        way = Way(name, aggregator.id, aggregator.version)
        fused = [asked.reply for asked in await self.questioner.ask_all(way, self.questions, messages=messages)]
        arm = await self._graded(name, fused, [[*replies, reply] for replies, reply in zip(given, fused, strict=True)], measured)
        waited = [max(r.latency_ms for r in replies) + reply.latency_ms for replies, reply in zip(given, fused, strict=True)]
        return replace(arm, latency_ms=np.array(waited))

    async def _graded(self, name: str, final: Sequence[Reply], given: Sequence[Sequence[Reply]], measured: Measured) -> Arm:
        asked = [Asked(reply, await self.questioner.graded(question, reply)) for question, reply in zip(self.questions, final, strict=True)]
        return self._arm(name, "baseline", given, measured, final=final, scores=[one.score for one in asked])

    def _arm(
        self,
        name: str,
        kind: ArmKind,
        given: Sequence[Sequence[Reply]],
        measured: Measured,
        *,
        final: Sequence[Reply],
        scores: Sequence[float],
    ) -> Arm:
        """*given*: every reply that an answer took, which came side by side."""
        columns = {expert: column for column, expert in enumerate(measured.expert_ids)}
        return Arm(
            name,
            kind,
            scores=np.array(scores, np.float64),
            costs=np.array([self._cost(replies, measured.unit) for replies in given]) if measured.unit else None,
            chosen=np.array([columns.get(r.expert or "", -1) for r in final]) if kind == "strategy" else None,
            calls=np.array([float(sum(max(1, len(reply.calls)) for reply in replies)) for replies in given]),
            latency_ms=np.array([max(reply.latency_ms for reply in replies) for replies in given]),
            num_failed=sum(reply.error is not None for reply in final),
        )

    def _unit(self) -> str:
        known = [*self.experts, *self.others.values()]
        if all(expert.usd_per_prompt_token or expert.usd_per_completion_token for expert in known):
            return PER_ANSWER
        return COMPUTE if all(expert.parameters_b for expert in known) else ""

    def _cost(self, replies: Sequence[Reply], unit: str) -> float:
        known = {expert.id: expert for expert in (*self.others.values(), *self.experts)}
        if self.aggregator is not None:
            known.setdefault(self.aggregator.id, self.aggregator)
        total = 0.0
        for call in (call for reply in replies for call in reply.calls):
            expert = known.get(call.expert)
            if expert is None:
                return float("nan")
            if unit == PER_ANSWER:
                total += call.prompt_tokens * expert.usd_per_prompt_token
                total += (call.tokens - call.prompt_tokens) * expert.usd_per_completion_token
            else:
                total += call.tokens * (expert.parameters_b or 0.0)
        return total


def _failures(name: str, asked: Sequence[Asked]) -> str:
    """How often *name* gave no answer and why, for people; "" when it always did."""
    errors = Counter(one.reply.error for one in asked if one.reply.error is not None)
    if not errors:
        return ""
    (error, _), num = errors.most_common(1)[0], errors.total()
    return f"{name} did not answer {num} of {len(asked)} questions, most often: {shortened(str(error), _MAX_ERROR)}"
