"""One expert reads all candidates and writes the answer; which one was measured (Symbolic-MoE, arXiv 2503.05641)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from domain.experts import ExpertCard
from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, Chosen, Synthesis
from orchestrator.aggregation.material import fitting, room_for, shown_text, told_cut, trimmed
from orchestrator.aggregation.prompts import answer_text, fuse_messages
from orchestrator.aggregation.readers import better_than, is_named, reader_for
from orchestrator.aggregation.vote import Vote, all_alike
from orchestrator.aggregation.weighted_vote import WeightedVote, weighed
from orchestrator.options import Options
from orchestrator.prompts import instructions


class Fuse:
    """Asked for by the request, else fixed by the strategy, else the best measured aggregator for the query's category.
    Whether the request may ask for that one is checked before it is routed; what fails since then gives way to the measured.

    Nobody is asked where there is nothing to read: all candidates say the same, or only one says anything. Where a candidate was measured
    to be right more often than the aggregator would find the right answer, the candidates vote, weighed by what was measured; with no
    usable aggregator at all they vote.
    """

    name: AggregatorName = "fuse"
    calls_expert = True
    writes = True
    options: Options = MappingProxyType({})

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:
        return _reader(context)[0]

    def without_expert(self, context: AggregationContext) -> str:
        return Vote.name if reader_for(context)[0] is None else WeightedVote.name

    def num_calls(self, context: AggregationContext, num_candidates: int) -> int:
        return int(num_candidates > 1 and self.expert_for(context) is not None)

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen | Synthesis:
        expert, why = _reader(context)
        if expert is None:
            by_weight = self.without_expert(context) == WeightedVote.name
            chosen = weighed(context, candidates, "measured") if by_weight else Vote().decide(context, candidates)
            return Chosen(chosen.candidate, f"{why}, so {chosen.why}", chosen.by)
        if all_alike(context.request, candidates):
            return Chosen(candidates[0], f"all {len(candidates)} candidates say the same, so nobody had to read them", self.name)
        told = fitting(context.request, candidates)
        if len(told) == 1:
            return Chosen(told[0], f"only {told[0].expert_id} of {len(candidates)} candidates answered what was asked", self.name)
        messages, prompts = context.request.messages, context.strategy.prompts
        texts = [shown_text(answer_text(candidate)) for candidate in told]
        names = [candidate.expert_id for candidate in told]
        if context.weak_answer is not None:
            texts, names = [*texts, context.weak_answer], [*names, "the weak answer"]
        shown, cut = trimmed(texts, room_for(expert, context.request, messages, instructions("fuse", prompts)))
        why += told_cut(names, texts, shown, cut, expert.id)
        weak = shown.pop() if context.weak_answer is not None else None
        return Synthesis(expert, fuse_messages(messages, shown, expert.aggregation_prompt, prompts, weak=weak), why)


def _reader(context: AggregationContext) -> tuple[ExpertCard | None, str]:
    expert, why = reader_for(context)
    if expert is None or is_named(context, expert) or (better := better_than(context, expert)) is None:
        return expert, why
    return None, better
