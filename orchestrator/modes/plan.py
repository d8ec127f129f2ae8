"""An expert plans, others carry its steps out as a graph, and what they found becomes the answer.

After OpenAGI (Ge et al., arXiv 2304.04370), TaskMatrix.AI (Liang et al., arXiv 2303.16434: a shortlist of cards, so that the planner's
prompt stays bounded) and InteRecAgent (Huang et al., arXiv 2308.16505: one reflection on a plan that failed).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domain.chat import text_of
from domain.experts import ExpertCard, ExpertRole
from domain.plan import CallRole, Candidate, ExpertCall, Outcome
from domain.quoting import shortened
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.judge import question_of
from orchestrator.aggregation.prompts import COMPACT
from orchestrator.modes.base import Ask, Mode, Step, Steps, Write
from orchestrator.modes.parts import (
    alone,
    answers_among,
    best_so_far,
    draft_call,
    failures_among,
    helper_call,
    last_or_best,
    one_choice_only,
    reading,
    said_by,
    writer_of,
)
from orchestrator.modes.plans import PlanStep, read_plan
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls, repeated
from orchestrator.prompts import Block

NAME = "plan"
OPTIONS: Options = {
    "planner_expert": Option(None),
    "max_steps": Option(6, 1, 16),
    "shortlist": Option(8, 2, 32),
    "finish": Option("auto", choices=("auto", "write", "last")),
}
_MAX_ASKED = 200
"""Letters of a step's input that are shown beside its answer."""
_NUM_PLANS = 2
"""Plans that are asked for: the first, and one that mends it."""


@dataclass(frozen=True, slots=True)
class PlanMode:
    context: AggregationContext
    planner: ExpertCard
    shortlist: tuple[ExpertCard, ...]
    max_steps: int
    reader: ExpertCard
    """Writes the answer from what the steps have found, where one does."""
    why: str

    is_alone = False
    is_known_ahead = False

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(card.id for card in self.shortlist)

    @property
    def announced(self) -> str:
        return f"{NAME}:{self.reader.id}" if self.writes else NAME

    @property
    def num_calls(self) -> int:
        return _NUM_PLANS + self.max_steps + 1

    @property
    def writes(self) -> bool:
        """Whether somebody writes the answer; else the last step's is told."""
        finish = read(self.context.options, OPTIONS, "finish")
        return finish == "write" or (finish == "auto" and self.reader.aggregation_prompt != COMPACT)

    def steps(self) -> Steps:
        return (yield from self.carried_out(first_stage=1))

    def carried_out(self, *, first_stage: int) -> Steps:
        """The plan, made and carried out; where there is none, or one of its steps fails, the best expert answers by itself."""
        steps, why = yield from self._planned(first_stage)
        if not steps:
            return (yield from alone(self.context, NAME, why, first_stage + _NUM_PLANS))
        context, stage = self.context, first_stage + _NUM_PLANS
        answers: dict[str, str] = {}
        found: list[Candidate] = []
        last = steps[-1]
        writes = self.writes and not (len(steps) == 1 and last.is_question)
        while left := [step for step in steps if step.id not in answers]:
            ready = [step for step in left if step.after <= answers.keys()]
            so_far = best_so_far(context, list(reversed(found)), NAME, why)
            if ready == [last] and len(left) == 1 and not writes:
                call = self._step_call(last, answers, is_last=True)
                (outcome,) = yield Write(call, f"{NAME}:{last.expert}", why, stage, so_far=so_far)
                if isinstance(outcome, Candidate) and answers_among([outcome]):
                    return last_or_best(context, outcome, [], f"{NAME}:{last.expert}", why)
                return (yield from alone(self.context, NAME, f"{why}; step {last.id} ({last.expert}) gave no answer", stage + 1))
            calls = tuple(self._step_call(step, answers, is_last=False) for step in ready)
            outcomes: Sequence[Outcome] = yield Ask(calls, stage, so_far=so_far, num_to_come=len(left) - len(ready) + writes)
            for step, outcome in zip(ready, outcomes, strict=True):
                if not (answered := answers_among([outcome])):
                    return (yield from alone(self.context, NAME, f"{why}; step {step.id} ({step.expert}) gave no answer", stage + 1))
                answers[step.id] = said_by(answered[0])
                found += answered
            stage += 1
        blocks = [Block(f"step {number} by {step.expert}", self._found(step, answers)) for number, step in enumerate(steps, 1)]
        messages, cut = reading(context, self.reader, "plan.answer", blocks)
        by = f"{NAME}:{self.reader.id}"
        so_far = best_so_far(context, found[-1:], by, why + cut)
        (written,) = yield Write(aggregator_call(context, self.reader, messages), by, why + cut, stage, so_far=so_far)
        return last_or_best(context, written, found[-1:], by, why + cut)

    def _planned(self, stage: int) -> Generator[Step, Any, tuple[tuple[PlanStep, ...], str]]:
        """The steps, or none and why not."""
        known, problems, before = {card.id for card in self.shortlist}, list[str](), ""
        for number in range(_NUM_PLANS):
            call = self._planner_call(before, problems, sample=number)
            (outcome,) = yield Ask((call,), stage + number, num_to_come=2)
            if not (said := answers_among([outcome])):
                failed = failures_among([outcome])
                return (), f"{self.why}; {self.planner.id} made no plan ({failed[0].message})"
            before = said_by(said[0])
            steps, problems = read_plan(before, known, max_steps=self.max_steps)
            if steps:
                told = " > ".join(f"{step.id} {step.expert}" for step in steps)
                return steps, f"{self.why}; its plan{' was mended once' if number else ''}: {told}"
        return (), f"{self.why}; {self.planner.id} made no plan that can be carried out ({'; '.join(problems)})"

    def _planner_call(self, before: str, problems: Sequence[str], *, sample: int) -> ExpertCall:
        context = self.context
        if self.planner.aggregation_prompt == COMPACT:  # it was trained to answer a question with a plan
            call = draft_call(context, self.planner, context.request.messages)
            params = {**call.params, **(repeated(call.params, context.request, sample) if sample else {})}
            return replace(call, params=params, role=CallRole.STEP)
        experts = "\n".join(_described(card) for card in self.shortlist)
        blocks = [Block("task", question_of(context)), Block("experts", experts)]
        if problems:
            blocks += [Block("earlier plan", before), Block("what is wrong with it", "\n".join(problems))]
        call, _ = helper_call(
            context, self.planner, "plan.repair" if problems else "plan.make", blocks, max_steps=str(self.max_steps)
        )  # fmt: skip
        return call

    def _step_call(self, step: PlanStep, answers: Mapping[str, str], *, is_last: bool) -> ExpertCall:
        card = self.context.snapshot.experts[step.expert]
        conversation = tuple(self.context.request.messages)
        messages = conversation if step.is_question else ({"role": "user", "content": self._filled(step, answers)},)
        if is_last:
            return replace(aggregator_call(self.context, card, messages), role=CallRole.CANDIDATE)
        return draft_call(self.context, card, messages)

    def _filled(self, step: PlanStep, answers: Mapping[str, str]) -> str:
        asked = (text_of(message) for message in reversed(self.context.request.messages) if message.get("role") == "user")
        return step.filled(answers, next(asked, ""))

    def _found(self, step: PlanStep, answers: Mapping[str, str]) -> str:
        """What a step was asked and has answered. All of it stands inside the fence: experts have written it."""
        return f"{shortened(self._filled(step, answers), _MAX_ASKED)}\n\n{answers[step.id]}"


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """With as many steps as *max_calls* carries beside two plans and an answer; with too few the best expert alone."""
    one_choice_only(context, NAME)
    mode = plan_of(context, max_calls)
    return context.decision, mode or Single(candidate_calls(context, context.decision, max_calls=1)[0])


def plan_of(context: AggregationContext, max_calls: int) -> PlanMode | None:
    """None where *max_calls* is too little for a plan of two steps, or nobody can plan."""
    max_steps = min(read(context.options, OPTIONS, "max_steps"), max_calls - _NUM_PLANS - 1)
    if max_steps < 1:
        return None
    reader, _ = writer_of(context)
    named = context.options.get("planner_expert")
    planner = context.snapshot.experts.get(named) if isinstance(named, str) else None
    if planner is None or not context.usable(planner):
        planner = reader
    why = f"{planner.id} plans" if named is None or planner.id == named else f"{planner.id} plans, since {named} cannot be asked"
    return PlanMode(context, planner, _shortlist(context), max_steps, reader, why)


def _shortlist(context: AggregationContext) -> tuple[ExpertCard, ...]:
    """The experts that a planner may use: the best scored for the question, those that were selected among them, then any others."""
    length, experts = read(context.options, OPTIONS, "shortlist"), context.snapshot.experts
    ranked = [*context.decision.selected, *(scored.expert_id for scored in context.decision.considered), *sorted(experts)]
    known = (experts[expert_id] for expert_id in dict.fromkeys(ranked) if expert_id in experts)
    return tuple(card for card in known if ExpertRole.CANDIDATE in card.roles and context.usable(card))[:length]


def _described(card: ExpertCard) -> str:
    skills = f" (skills: {', '.join(card.skills)})" if card.skills else ""
    return f"{card.id}: {card.description or 'no description'}{skills}"
