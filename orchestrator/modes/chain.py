"""Experts one after the other: each reads the draft of the one before and confirms or improves it, until nothing changes.

Chain-of-Experts (Wang et al., arXiv 2506.18945) between whole models: every step is routed anew, on the question with the draft.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.chat import Message, text_of
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.fallback import is_answer
from orchestrator.aggregation.material import fits
from orchestrator.aggregation.vote import ballot
from orchestrator.modes.base import Ask, Mode, NextExpert, Nobody, Noted, Steps, Told, Write
from orchestrator.modes.parts import best_so_far, draft_call, experts_of, failures_among, one_choice_only, reading, said_by
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls
from orchestrator.prompts import Block

NAME = "chain"
OPTIONS: Options = {"steps": Option(3, 1, 8)}


@dataclass(frozen=True, slots=True)
class Chain:
    context: AggregationContext
    first: ExpertCard
    num_steps: int
    """At most."""

    announced = NAME
    is_alone = False
    others = ()
    is_known_ahead = False
    reader = None

    @property
    def num_calls(self) -> int:
        return self.num_steps

    def steps(self) -> Steps:
        context, notes, failures = self.context, list[Noted](), list[ExpertFailure]()
        draft: Candidate | None = None
        is_own = True
        asked = {self.first.id}
        card: ExpertCard | None = self.first
        for number in range(1, self.num_steps + 1):
            if number > 1:
                card = yield NextExpert(_routed(context, draft), frozenset(asked))
            if card is None:
                break
            asked.add(card.id)
            is_last = number == self.num_steps
            call, by = self._call(card, draft, is_last), f"{NAME}:{card.id}"
            so_far = best_so_far(context, [draft] if draft else [], f"{NAME}:{draft.expert_id}" if draft else by, _told(notes))
            outcome: Outcome
            if is_last:
                (outcome,) = yield Write(call, by, _told(notes), number, wait="experts", so_far=so_far)
            else:
                (outcome,) = yield Ask((call,), number, so_far=so_far, num_to_come=1)
            if not isinstance(outcome, Candidate) or not is_answer(outcome) or (is_last and not fits(context.request, outcome)):
                failures += failures_among([outcome])
                notes.append(
                    Noted(number, f"{card.id} gave no answer" if draft is None else f"{card.id} gave no answer, so the draft stays")
                )
                if isinstance(outcome, Candidate) and is_last and draft is None:
                    return Told(outcome, by, _told(notes), tuple(notes))
                continue
            before, draft, is_own = draft, outcome, draft is None
            if before is not None and ballot(before) == ballot(outcome):
                notes.append(Noted(number, f"{card.id} confirmed it"))
                if _may_end(context, outcome):
                    break
                continue
            notes.append(Noted(number, f"{card.id} {'answered' if before is None else 'changed it'}"))
        if draft is None:
            return Nobody(tuple(failures), tuple(notes))
        return Told(draft, f"{NAME}:{draft.expert_id}", _told(notes), tuple(notes), is_own=is_own)

    def _call(self, card: ExpertCard, draft: Candidate | None, is_last: bool) -> ExpertCall:
        context = self.context
        messages = context.request.messages if draft is None else reading(context, card, "chain.step", [Block("draft", said_by(draft))])[0]
        if is_last:
            call = aggregator_call(context, card, tuple(messages))
            return ExpertCall(card, call.messages, call.params, call.deadline, call.request_id, CallRole.CANDIDATE, again=call.again)
        return draft_call(context, card, messages)


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    one_choice_only(context, NAME)
    num_steps = min(read(context.options, OPTIONS, "steps"), max_calls)
    if num_steps < 2:
        return context.decision, Single(candidate_calls(context, context.decision, max_calls=1)[0])
    return context.decision, Chain(context, experts_of(context)[0], num_steps)


def _may_end(context: AggregationContext, draft: Candidate) -> bool:
    """Whether *draft* can be the answer: only the last call is told of JSON and of tools."""
    return fits(context.request, draft) and not context.request.params.get("tools")


def _routed(context: AggregationContext, draft: Candidate | None) -> tuple[Message, ...]:
    """What the next step is routed by: the question, and what has been answered so far."""
    messages = context.request.messages
    last = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=len(messages) - 1)
    asked: Message = {"role": "user", "content": "\n".join([text_of(messages[last]), said_by(draft) if draft else ""]).strip()}
    return (*messages[:last], asked)


def _told(notes: list[Noted]) -> str:
    return "; ".join(noted.note for noted in notes)
