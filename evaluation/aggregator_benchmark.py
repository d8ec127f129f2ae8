"""The aggregator benchmark of Symbolic-MoE (arXiv 2503.05641, section 3.3): who finds the right answer among wrong ones?

Each item is a labelled question with one right and two wrong answers, taken from a profile run and shuffled. Every expert
with the aggregator role synthesises an answer, which is graded. The share of right ones, per category, is its profile.

The paper also uses questions with fewer than two wrong answers, or no right one, and leaves those places blank. Here a
question needs a right answer, since without one only the aggregator's own knowledge would be measured; ``min_wrong``
says how many real wrong answers it needs, and blanks fill up to two.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.chat import Message
from domain.errors import InvalidRequest
from domain.evaluation import AggregatorOutcome, QuestionOutcome
from domain.experts import ExpertCard, ExpertRole
from domain.plan import CallRole
from domain.skills import AggregatorProfile, LabelledQuestion, SkillCount
from evaluation.graders import Grader
from evaluation.labelled import messages_of
from evaluation.sweep import Sweep, SweepLimits, Task
from orchestrator.ports import Workers

NUM_WRONG = 2

BuildMessages = Callable[[Sequence[Message], Sequence[str], str], Sequence[Message]]
"""``(question_messages, answers, template_name) -> messages``: the prompt that a panel's aggregator gets."""


@dataclass(frozen=True, slots=True)
class SynthesisItem:
    """One question with three candidate answers in shuffled order; a blank one is ""."""

    question: LabelledQuestion
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AggregatorReport:
    """What the benchmark came to."""

    profiles: Mapping[str, AggregatorProfile]
    outcomes: tuple[AggregatorOutcome, ...]
    num_items: int
    stopped: Mapping[str, str]
    """Experts that were given up, with the reason."""


def build_items(
    questions: Sequence[LabelledQuestion],
    outcomes: Iterable[QuestionOutcome],
    *,
    seed: int = 0,
    min_wrong: int = NUM_WRONG,
    max_per_category: int | None = None,
) -> list[SynthesisItem]:
    """The items that *outcomes* give, in the order of *questions*; the same seed gives the same items.

    The answers of an item are from different experts (of one expert's several runs, the last counts); those with an
    error and empty ones are left out. Which answers of a question are taken depends on the seed and that
    question alone, so that adding questions does not change the others. *max_per_category* keeps the first so many.
    """
    newest = {(outcome.question_id, outcome.expert_id): outcome for outcome in outcomes}
    right: dict[str, list[str]] = {}
    wrong: dict[str, list[str]] = {}
    for outcome in newest.values():
        if outcome.error is None and outcome.answer.strip():
            (right if outcome.correct else wrong).setdefault(outcome.question_id, []).append(outcome.answer)
    items: list[SynthesisItem] = []
    num_taken: dict[str | None, int] = {}
    for question in questions:
        good, bad = sorted(right.get(question.id, ())), sorted(wrong.get(question.id, ()))
        taken = num_taken.get(question.category, 0)
        if not good or len(bad) < min_wrong or (max_per_category is not None and taken >= max_per_category):
            continue
        num_taken[question.category] = taken + 1
        rng = random.Random(f"{seed}/{question.id}")
        answers = [rng.choice(good), *rng.sample(bad, min(NUM_WRONG, len(bad)))]
        answers += [""] * (1 + NUM_WRONG - len(answers))
        rng.shuffle(answers)
        items.append(SynthesisItem(question, tuple(answers)))
    return items


class AggregatorBenchmark:
    """Runs *items* through every expert of *experts* that has the aggregator role.

    Raises ``InvalidRequest`` when there is no such expert, no item, or an item that cannot be graded.
    """

    def __init__(
        self,
        experts: Sequence[ExpertCard],
        items: Sequence[SynthesisItem],
        *,
        build_messages: BuildMessages,
        workers: Workers,
        grader: Grader | None = None,
        limits: SweepLimits | None = None,
        on_progress: Callable[[AggregatorOutcome], None] | None = None,
    ) -> None:
        grader = grader or Grader()
        self._experts = tuple(expert for expert in experts if ExpertRole.AGGREGATOR in expert.roles)
        if not self._experts:
            raise InvalidRequest(
                "no expert has the role 'aggregator'; add it to the roles of an expert that may fuse answers", param="roles"
            )
        if not items:
            raise InvalidRequest(f"no question has one right and {NUM_WRONG} wrong answers on record; profile more experts first")
        for item in items:
            grader.check(item.question)
        self._items = tuple(items)
        self._build_messages = build_messages
        self._limits = limits or SweepLimits()
        self._sweep = Sweep(workers, grader, self._limits, role=CallRole.AGGREGATOR, name="aggregator-benchmark")
        self._on_progress = on_progress

    async def execute(self) -> AggregatorReport:
        """Ask every aggregator every item and count. An aggregator's failure is no wrong answer; too many end its turn."""
        turns = asyncio.Semaphore(self._limits.max_experts)
        outcomes: list[AggregatorOutcome] = []
        stopped: dict[str, str] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for expert in self._experts:
                    group.create_task(self._measure(expert, outcomes, stopped, turns))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # one cause is enough; the others were cancelled for it
        return AggregatorReport(profiles_of(outcomes), tuple(outcomes), len(self._items), stopped)

    async def _measure(
        self, expert: ExpertCard, outcomes: list[AggregatorOutcome], stopped: dict[str, str], turns: asyncio.Semaphore
    ) -> None:
        async def take(asked: QuestionOutcome) -> None:
            outcome = AggregatorOutcome(
                expert.id, asked.question_id, asked.category, asked.correct, asked.answer, asked.error, expert.aggregator_fingerprint
            )
            outcomes.append(outcome)
            if self._on_progress is not None:
                self._on_progress(outcome)

        tasks = [Task(item.question, self._messages(expert, item)) for item in self._items]
        async with turns:
            reason = await self._sweep.ask_all(expert, tasks, take)
        if reason is not None:
            stopped[expert.id] = reason

    def _messages(self, expert: ExpertCard, item: SynthesisItem) -> tuple[Message, ...]:
        return tuple(self._build_messages(messages_of(item.question), item.answers, expert.aggregation_prompt))


def profiles_of(outcomes: Iterable[AggregatorOutcome]) -> dict[str, AggregatorProfile]:
    """Counts per expert, overall and per category; outcomes with an error count for nothing."""
    overall: dict[str, SkillCount] = {}
    by_category: dict[str, dict[str, SkillCount]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            continue
        one = SkillCount(1, int(outcome.correct))
        overall[outcome.expert_id] = overall.get(outcome.expert_id, SkillCount()) + one
        categories = by_category.setdefault(outcome.expert_id, {})
        if outcome.category is not None:
            categories[outcome.category] = categories.get(outcome.category, SkillCount()) + one
    return {expert_id: AggregatorProfile(expert_id, by_category[expert_id], count) for expert_id, count in overall.items()}
