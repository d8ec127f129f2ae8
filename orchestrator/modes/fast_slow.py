"""One expert answers; a judge looks at it; only what does not pass is planned and worked out by several.

HDFlow (Yao et al., arXiv 2409.17433): fast thinking, a verdict, slow thinking by a designed workflow, and bounded redesigns. Its tool
experts, which run code, are left out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.cascade.confidence import judge_messages, read_verdict
from orchestrator.modes.base import Ask, Mode, Nobody, Noted, Step, Steps, Told, Write
from orchestrator.modes.parts import answers_among, best_so_far, experts_of, failures_among, one_choice_only, said_by
from orchestrator.modes.plan import OPTIONS as PLAN_OPTIONS
from orchestrator.modes.plan import PlanMode, plan_of
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls

NAME = "fast_slow"
OPTIONS: Options = {**PLAN_OPTIONS, "judge_expert": Option(None), "redesigns": Option(1, 0, 3)}
_FAST_CALLS = 2
"""The answer and its verdict."""
_STAGES_OF_A_PLAN = 24
"""Numbers that are kept for the stages of one plan: two for the plan, one for each step, two to end it."""
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class FastSlow:
    slow: PlanMode
    fast: ExpertCard
    judge: ExpertCard
    num_redesigns: int

    announced = NAME
    is_alone = False
    is_known_ahead = False

    @property
    def others(self) -> tuple[str, ...]:
        return self.slow.others

    @property
    def reader(self) -> ExpertCard | None:
        return self.slow.reader

    @property
    def num_calls(self) -> int:
        return _FAST_CALLS + (self.num_redesigns + 1) * self.slow.num_calls + self.num_redesigns

    def steps(self) -> Steps:
        context, by = self.slow.context, f"{NAME}:{self.fast.id}"
        call = replace(aggregator_call(context, self.fast, tuple(context.request.messages)), role=CallRole.CANDIDATE)
        (outcome,) = yield Ask((call,), 1, num_to_come=1)
        answered, best = answers_among([outcome]), list[Candidate]()
        why = f"fast: {self.fast.id} gave no answer"
        if answered:
            best, stage = answered, 2
            passed, verdict = yield from self._judged(answered[0], stage, by)
            why = f"fast: {self.fast.id} {verdict}"
            if passed:
                return Told(answered[0], by, why, (Noted(1, "it passed"),))
        for number in range(self.num_redesigns + 1):
            first = 3 + number * (_STAGES_OF_A_PLAN + 1)
            is_last = number == self.num_redesigns
            end = yield from (self.slow if is_last else _Whole(self.slow)).carried_out(first_stage=first)
            if isinstance(end, Nobody):
                if best:
                    return Told(best[0], f"{by} (fallback)", f"{why}; slow: every expert failed, so the fast answer stands")
                return Nobody((*failures_among([outcome]), *end.failures))
            how, why = end.by.replace("plan", f"{NAME}", 1), f"{why}; slow: {end.why}"
            if is_last:
                return replace(end, by=how, why=why)
            best = [end.answer]
            passed, verdict = yield from self._judged(end.answer, first + _STAGES_OF_A_PLAN, how)
            why = f"{why}; {verdict}"
            if passed:
                return replace(end, by=how, why=why)
        return Nobody(failures_among([outcome]))

    def _judged(self, answer: Candidate, stage: int, by: str) -> Generator[Step, Any, tuple[bool, str]]:
        """Whether *answer* passes, and what was said of it. Words that cannot be read let it pass, as a judge that fails does."""
        context = self.slow.context
        messages = judge_messages(self.judge, context.request.messages, answer, context.strategy.prompts)
        call = ExpertCall(
            self.judge, messages, {**self.judge.sampling}, context.deadline, context.request.id, CallRole.JUDGE, again=context.again
        )  # fmt: skip
        (verdict,) = yield Ask((call,), stage, wait="aggregate", so_far=best_so_far(context, [answer], by, "the answer was not judged"))
        said = answers_among([verdict])
        sure = read_verdict(said_by(said[0])) if said else None
        if sure is None:
            return True, f"passed, since the judge {self.judge.id} gave no readable verdict"
        return sure >= _SURE, f"{'passed' if sure >= _SURE else 'did not pass'} ({self.judge.id} said {sure:.0%})"


@dataclass(frozen=True, slots=True)
class _Whole:
    """A plan whose answer is still to be judged, so that nothing of it is told as it comes."""

    plan: PlanMode

    def carried_out(self, *, first_stage: int) -> Steps:
        steps = self.plan.carried_out(first_stage=first_stage)
        sent: Any = None
        while True:
            try:
                step: Step = steps.send(sent)
            except StopIteration as ended:
                end: Told | Nobody = ended.value
                return end
            if isinstance(step, Write):
                step = Ask((step.call,), step.stage, wait=step.wait, so_far=step.so_far, num_to_come=1)
            sent = yield step


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """As many redesigns, then as many steps, as *max_calls* carries; with too few the best expert alone."""
    one_choice_only(context, NAME)
    for num_redesigns in range(read(context.options, OPTIONS, "redesigns"), -1, -1):
        slow = plan_of(context, (max_calls - _FAST_CALLS - num_redesigns) // (num_redesigns + 1))
        if slow is not None and (slow.max_steps > 1 or not num_redesigns):
            named = context.options.get("judge_expert")
            judge = context.snapshot.experts.get(named) if isinstance(named, str) else None
            judge = judge if judge is not None and context.usable(judge) else slow.reader
            return context.decision, FastSlow(slow, experts_of(context)[0], judge, num_redesigns)
    return context.decision, Single(candidate_calls(context, context.decision, max_calls=1)[0])
