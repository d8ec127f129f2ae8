"""Experts answer beside solved problems that are like the question, and beside one another's best answers; a judge scores; in rounds.

Xolver (arXiv 2506.14234): experience that was gained before (an episodic memory of solved problems) and during the request (a shared
store of the best answers). What its published code writes into that memory is whatever was answered; here only what somebody vouched
for enters it (``orchestrator.feedback.solved``), so a mode never writes: it is shown what was recalled before it began.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domain.chat import Message
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.material import fits
from orchestrator.aggregation.prompts import COMPACT
from orchestrator.aggregation.vote import all_alike, ballot
from orchestrator.cascade.confidence import judge_messages, read_verdict
from orchestrator.modes.base import Ask, Mode, Nobody, Noted, SoFar, Step, Steps, Told, Write
from orchestrator.modes.parts import (
    answers_among,
    best_so_far,
    draft_call,
    experts_of,
    failures_among,
    last_or_best,
    one_choice_only,
    reading,
    said_by,
    writer_of,
)
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls
from orchestrator.prompts import Block

NAME = "memory"
OPTIONS: Options = {
    "agents": Option(2, 1, 8),
    "rounds": Option(2, 1, 4),
    "demonstrations": Option(5, 0, 10),
    "min_similarity": Option(0.5, 0.0, 1.0),
    "judge_expert": Option(None),
    "answer": Option("written", choices=("written", "best")),
    "write": Option(False),
}
_SURE = 1.0
"""What a judge says of an answer with which there is nothing to refine: YES."""
_UNREAD = 0.5
"""Where an answer stands that no readable verdict speaks of: behind what was found right, before what was found wrong."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One answer of the store. Answers that say the same are one."""

    candidate: Candidate
    round: int
    order: int
    """Its place among all that were found."""
    score: float | None = None
    """What the judge said, in [0, 1]; None: nothing that can be read."""
    num_given: int = 1
    """How often it was given."""

    @property
    def rank(self) -> tuple[float, int, int]:
        """The larger the better: by verdict, then by how many gave it, then who was routed first."""
        return (_UNREAD if self.score is None else self.score, self.num_given, -self.order)

    @property
    def told(self) -> str:
        return "not judged" if self.score is None else f"score {self.score:.2f}"


@dataclass(frozen=True, slots=True)
class Memory:
    context: AggregationContext
    experts: tuple[ExpertCard, ...]
    num_agents: int
    num_rounds: int
    judge: ExpertCard
    writer: ExpertCard
    why: str

    is_alone = False
    is_known_ahead = False

    @property
    def others(self) -> tuple[str, ...]:
        return (self.judge.id,)

    @property
    def reader(self) -> ExpertCard | None:
        return self.writer

    @property
    def announced(self) -> str:
        return f"{NAME}:{self.writer.id}"

    @property
    def num_calls(self) -> int:
        return 2 * self.num_rounds * self.num_agents + 1

    def steps(self) -> Steps:
        context, by = self.context, self.announced
        why = f"{self.why}{_told_shown(context)}"
        store, notes = dict[str, _Kept](), list[Noted]()
        own: dict[int, Candidate] = {}
        failures: tuple[ExpertFailure, ...] = ()
        for round_ in range(1, self.num_rounds + 1):
            stage, best = 2 * round_ - 1, self._best(store)
            calls = tuple(self._draft(agent, own.get(agent), store) for agent in range(self.num_agents))
            to_come = 2 * (self.num_rounds - round_) * self.num_agents + self.num_agents + 1
            outcomes = yield Ask(calls, stage, so_far=self._so_far(best, by, why), num_to_come=to_come)
            failures += failures_among(outcomes)
            own |= {agent: outcome for agent, outcome in enumerate(outcomes) if answers_among([outcome])}
            found = answers_among(outcomes)
            if not found and not store:
                return Nobody(failures, tuple(notes))
            if not found:
                why += f"; nobody answered in round {round_}, so the answers before it were used"
                break
            if len(found) > 1 and all_alike(context.request, found) and self._may_end(found[0]):
                told = f"{why}; all {len(found)} answers of round {round_} say the same, so nobody had to judge them"
                return Told(found[0], NAME, told, tuple(notes), is_own=round_ == 1)
            yield from self._judged(found, store, round_, by, why)
            best = self._best(store)
            notes.append(Noted(stage, ", ".join(f"{kept.candidate.expert_id} {kept.told}" for kept in best), best[0].score))
            if self._is_settled(best):
                first = best[0]
                told = f"{why}; {self.judge.id} found one answer right in round {round_}, that of {first.candidate.expert_id}"
                return Told(first.candidate, f"{NAME}:{first.candidate.expert_id}", told, tuple(notes), is_own=first.round == 1)
        return (yield from self._answered(self._best(store), by, why, tuple(notes)))

    def _answered(self, best: Sequence[_Kept], by: str, why: str, notes: tuple[Noted, ...]) -> Steps:
        context, candidates = self.context, [kept.candidate for kept in best]
        if read(context.options, OPTIONS, "answer") == "best" and self._may_end(candidates[0]):
            first = best[0]
            told = f"{why}; the best of the store is told as it is, that of {first.candidate.expert_id} ({first.told})"
            return Told(first.candidate, f"{NAME}:{first.candidate.expert_id}", told, notes, is_own=first.round == 1)
        messages, cut = self._shown(self.writer, "memory.answer", _leading(best), ())
        call = aggregator_call(context, self.writer, tuple(messages))
        stage = 2 * self.num_rounds + 1
        (written,) = yield Write(call, by, why + cut, stage, so_far=self._so_far(best, by, why + cut))
        end = last_or_best(context, written, candidates, by, why + cut)
        return replace(end, notes=notes)

    def _draft(self, agent: int, own: Candidate | None, store: dict[str, _Kept]) -> ExpertCall:
        card, sample = self.experts[agent % len(self.experts)], agent // len(self.experts)
        best, solved = self._best(store), _solved(self.context)
        if not best and (not solved or card.aggregation_prompt == COMPACT):
            return draft_call(self.context, card, self.context.request.messages, sample=sample)
        if not best:
            return draft_call(self.context, card, reading(self.context, card, "memory.first", solved)[0], sample=sample)
        mine = () if own is None else (Block(f"your earlier answer, {self._told_of(own, store)}", said_by(own)),)
        others = _leading([kept for kept in best if own is None or kept is not store.get(ballot(own))])
        return draft_call(self.context, card, self._shown(card, "memory.again", others, mine)[0], sample=sample)

    def _shown(self, card: ExpertCard, template: str, leading: Sequence[Block], mine: Sequence[Block]) -> tuple[Sequence[Message], str]:
        """The conversation with what was answered, and the solved problems where *card* can tell the two apart."""
        solved = () if card.aggregation_prompt == COMPACT else _solved(self.context)
        return reading(self.context, card, template, [*solved, *mine, *leading])

    def _judged(self, found: Sequence[Candidate], store: dict[str, _Kept], round_: int, by: str, why: str) -> Generator[Step, Any, None]:
        """*found* enters *store*; what is new there is judged, each by itself."""
        new: list[str] = []
        for candidate in found:
            said = ballot(candidate)
            known = store.get(said)
            if known is None:
                new.append(said)
                store[said] = _Kept(candidate, round_, len(store))
            else:
                store[said] = replace(known, num_given=known.num_given + 1)
        if not new:
            return
        calls = tuple(self._verdict_on(store[said].candidate) for said in new)
        to_come = 2 * (self.num_rounds - round_) * self.num_agents + 1
        so_far = self._so_far(self._best(store), by, why)
        verdicts = yield Ask(calls, 2 * round_, wait="aggregate", so_far=so_far, num_to_come=to_come)
        for said, verdict in zip(new, verdicts, strict=True):
            readable = answers_among([verdict])
            store[said] = replace(store[said], score=read_verdict(said_by(readable[0])) if readable else None)

    def _verdict_on(self, candidate: Candidate) -> ExpertCall:
        context = self.context
        messages = judge_messages(self.judge, context.request.messages, candidate, context.strategy.prompts)
        params = {**self.judge.sampling}
        return ExpertCall(self.judge, messages, params, context.deadline, context.request.id, CallRole.JUDGE, again=context.again)

    def _best(self, store: dict[str, _Kept]) -> list[_Kept]:
        """As many as there are agents, best first; those that are what was asked for (JSON) before the others."""
        ranked = sorted(store.values(), key=lambda kept: (fits(self.context.request, kept.candidate), kept.rank), reverse=True)
        return ranked[: self.num_agents]

    def _is_settled(self, best: Sequence[_Kept]) -> bool:
        """Whether exactly one answer was found right. Two different ones contradict one another: they are refined."""
        right = [kept for kept in best if kept.score is not None and kept.score >= _SURE]
        return len(right) == 1 and right[0] is best[0] and self._may_end(best[0].candidate)

    def _may_end(self, candidate: Candidate) -> bool:
        """Whether *candidate* can be the answer: only the last call is told of tools and of JSON."""
        return fits(self.context.request, candidate) and not self.context.request.params.get("tools")

    def _so_far(self, best: Sequence[_Kept], by: str, why: str) -> SoFar | None:
        return best_so_far(self.context, [kept.candidate for kept in best], by, why)

    def _told_of(self, own: Candidate, store: dict[str, _Kept]) -> str:
        kept = store.get(ballot(own))
        return "not judged" if kept is None else kept.told


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """As many rounds, then as many agents, as *max_calls* carries. One agent in one round has nothing to be judged against: it answers
    alone, beside the solved problems."""
    one_choice_only(context, NAME)
    num_agents, asked = read(context.options, OPTIONS, "agents"), read(context.options, OPTIONS, "rounds")
    writer, why = writer_of(context)
    judge = _judge(context) or writer
    smaller = [*((rounds, num_agents) for rounds in range(asked, 0, -1)), *((1, few) for few in range(num_agents - 1, 1, -1))]
    for rounds, agents in smaller:
        mode = Memory(context, tuple(experts_of(context)), agents, rounds, judge, writer, why)
        if rounds * agents > 1 and mode.num_calls <= max_calls:
            return context.decision, mode
    (call,) = candidate_calls(context, context.decision, max_calls=1)
    solved = _solved(context)
    if solved and call.expert.aggregation_prompt != COMPACT:
        call = replace(call, messages=reading(context, call.expert, "memory.first", solved)[0])
    return context.decision, Single(call)


def _judge(context: AggregationContext) -> ExpertCard | None:
    named = context.options.get("judge_expert")
    card = context.snapshot.experts.get(named) if isinstance(named, str) else None
    return card if card is not None and context.usable(card) else None


def _solved(context: AggregationContext) -> tuple[Block, ...]:
    return tuple(
        Block(f"solved problem {number}", f"Problem: {shown.question}\n\nAnswer: {shown.answer}")
        for number, shown in enumerate(context.recalled.shown, 1)
    )


def _leading(best: Sequence[_Kept]) -> list[Block]:
    return [Block(f"answer {number}, {kept.told}", said_by(kept.candidate)) for number, kept in enumerate(best, 1)]


def _told_shown(context: AggregationContext) -> str:
    num = len(context.recalled.shown)
    return f"; {num} solved problem{'s' * (num != 1)} shown" if num else ""
