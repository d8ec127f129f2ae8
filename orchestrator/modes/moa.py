"""Layers of experts, each reading what the layer before has said; one writes the answer.

Mixture-of-Agents (Wang et al., arXiv 2406.04692), and Self-MoA (Li et al., arXiv 2502.00674), where one expert is sampled several times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.material import fits
from orchestrator.aggregation.vote import all_alike
from orchestrator.modes.base import Ask, Mode, Nobody, Steps, Told, Write
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
from orchestrator.modes.single import SINGLE, why_single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call
from orchestrator.prompts import Block

NAME = "moa"
OPTIONS: Options = {
    "layers": Option(2, 1, 4),
    "self_moa": Option(False),
    "samples": Option(3, 2, 8),
}


@dataclass(frozen=True, slots=True)
class Moa:
    context: AggregationContext
    proposers: tuple[tuple[ExpertCard, int], ...]
    """Each with how often it stands there before."""
    num_layers: int
    reader: ExpertCard
    why: str

    is_alone = False
    others = ()
    is_known_ahead = False

    @property
    def announced(self) -> str:
        return f"{NAME}:{self.reader.id}"

    @property
    def num_calls(self) -> int:
        return self.num_layers * len(self.proposers) + 1

    def steps(self) -> Steps:
        context, by, why = self.context, self.announced, self.why
        quorum = context.request.options.quorum or context.strategy.quorum
        answers: list[Candidate] = []
        for layer in range(1, self.num_layers + 1):
            calls = tuple(self._call(card, sample, answers) for card, sample in self.proposers)
            to_come = (self.num_layers - layer) * len(self.proposers) + 1
            outcomes = yield Ask(calls, layer, so_far=best_so_far(context, answers, by, why), num_to_come=to_come, quorum=quorum)
            found = answers_among(outcomes)
            if not found and not answers:
                return Nobody(failures_among(outcomes))
            if not found:
                why += f"; nobody of layer {layer} answered, so the layer before was read"
                break
            answers = found
            if len(found) > 1 and all_alike(context.request, found):
                told = f"{why}; all {len(found)} of layer {layer} say the same, so nobody had to read them"
                return Told(found[0], NAME, told, is_own=layer == 1)
        if len(answers) == 1 and self.num_layers == 1 and fits(context.request, answers[0]):
            return Told(answers[0], SINGLE, why_single(len(self.proposers)))
        messages, cut = reading(context, self.reader, "fuse", _blocks(answers))
        call = aggregator_call(context, self.reader, messages)
        stage = self.num_layers + 1
        (written,) = yield Write(call, by, why + cut, stage, so_far=best_so_far(context, answers, by, why + cut))
        return last_or_best(context, written, answers, by, why + cut)

    def _call(self, card: ExpertCard, sample: int, before: list[Candidate]) -> ExpertCall:
        messages = reading(self.context, card, "fuse", _blocks(before))[0] if before else self.context.request.messages
        return draft_call(self.context, card, messages, sample=sample)


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """As many layers, then as many experts, as *max_calls* carries."""
    one_choice_only(context, NAME)
    experts = experts_of(context)
    proposers = [(card, 0) for card in experts]
    if read(context.options, OPTIONS, "self_moa"):
        proposers = [(experts[0], sample) for sample in range(read(context.options, OPTIONS, "samples"))]
    asked = num_layers = read(context.options, OPTIONS, "layers")
    while num_layers > 1 and num_layers * len(proposers) + 1 > max_calls:
        num_layers -= 1
    proposers = proposers[: max(1, max_calls - 1)]
    reader, why = writer_of(context)
    if num_layers < asked:
        why += f"; max_calls leaves {max_calls} calls, so {num_layers} of {asked} layers are asked"
    decision = replace(context.decision, selected=tuple(card.id for card, _ in proposers))
    if decision.selected == context.decision.selected:
        decision = context.decision
    return decision, Moa(replace(context, decision=decision), tuple(proposers), num_layers, reader, why)


def _blocks(answers: list[Candidate]) -> list[Block]:
    return [Block(f"answer {number}", said_by(answer)) for number, answer in enumerate(answers, 1)]
