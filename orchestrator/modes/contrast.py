"""A panel that also asks one expert that is known to be weak at the query: what only it says is probably wrong.

After the self-contrast of unchosen experts (SCMoE, Shi et al., arXiv 2405.14507), between whole models: instead of subtracting logits, a
candidate that nobody but the weak expert agrees with is left out, and who reads the rest is told what the weak answer is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from domain.experts import ExpertCard, ExpertRole
from domain.plan import CallRole, Candidate, ExpertCall
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.vote import ballot
from orchestrator.modes.base import Ask, Mode, Nobody, Steps, Told
from orchestrator.modes.panel import Panel, aggregated, compared, panel_of
from orchestrator.modes.parts import answers_among, draft_call, failures_among, said_by
from orchestrator.options import Option, Options

NAME = "contrast"
OPTIONS: Options = {"weak_expert": Option(None)}


@dataclass(frozen=True, slots=True)
class Contrast:
    panel: Panel
    weak: ExpertCard

    is_alone = False
    is_known_ahead = False

    @property
    def others(self) -> tuple[str, ...]:
        return (self.weak.id,)

    @property
    def announced(self) -> str:
        return self.panel.announced

    @property
    def num_calls(self) -> int:
        return self.panel.num_calls + 1

    @property
    def reader(self) -> ExpertCard | None:
        return self.panel.reader

    def steps(self) -> Steps:
        context, calls = self.panel.context, self.panel.calls
        quorum = context.request.options.quorum or context.strategy.quorum
        asked, to_come = (*calls, self._weak_call()), self.panel.num_calls - len(calls)
        outcomes = yield Ask(asked, 1, num_to_come=to_come, quorum=quorum, quorum_of=len(calls))
        *strong, weak = outcomes
        candidates = answers_among(strong)
        if not candidates:
            return Nobody(failures_among(strong))
        left, told = self._contrasted(candidates, answers_among([weak]))
        if len(left) == 1:
            return self.panel.as_asked(Told(left[0], NAME, told or f"one of {len(calls)} candidates answered"))
        if known := answers_among([weak]):
            context = replace(context, weak_answer=said_by(known[0]), memo={})
        end = yield from aggregated(context, self.panel.aggregator, left, num_free_calls=self.panel.num_free_calls, stage=2)
        end = compared(end, candidates)
        return self.panel.as_asked(replace(end, why=f"{told}; {end.why}") if told and isinstance(end, Told) else end)

    def _weak_call(self) -> ExpertCall:
        call = draft_call(self.panel.context, self.weak, self.panel.context.request.messages)
        return replace(call, role=CallRole.STEP)

    def _contrasted(self, candidates: list[Candidate], weak: list[Candidate]) -> tuple[list[Candidate], str]:
        """Those that somebody but the weak expert agrees with, or who say something else; and what was seen, for the trace."""
        if not weak:
            return candidates, f"{self.weak.id}, the weak expert, gave no answer"
        said = ballot(weak[0])
        alike = [candidate for candidate in candidates if ballot(candidate) == said]
        if not alike:
            return candidates, f"nobody agrees with {self.weak.id}, the weak expert"
        names = ", ".join(candidate.expert_id for candidate in alike)
        if len(alike) > 1 or len(candidates) == 1:
            return candidates, f"{names} agree with {self.weak.id}, the weak expert"
        left = [candidate for candidate in candidates if candidate is not alike[0]]
        return left, f"{names} agrees with {self.weak.id}, the weak expert, alone, so it was left out"


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:
    """A panel, and the weak expert where there is one and *max_calls* has room for it."""
    weak = _weak_expert(context)
    if weak is None or max_calls < 3:
        return panel_of(context, aggregator, max_calls)
    decision, panel = panel_of(context, aggregator, max_calls - 1)
    return decision, Contrast(panel, weak) if isinstance(panel, Panel) else panel


def _weak_expert(context: AggregationContext) -> ExpertCard | None:
    """The one that the strategy names, else the usable one with the lowest score that the router has considered."""
    experts, selected = context.snapshot.experts, set(context.decision.selected)
    named = context.options.get("weak_expert")
    if isinstance(named, str):
        card = experts.get(named)
        return card if card is not None and card.id not in selected and context.usable(card) else None
    for scored in reversed(context.decision.considered):
        card = experts.get(scored.expert_id)
        if card is not None and card.id not in selected and ExpertRole.CANDIDATE in card.roles and context.usable(card):
            return card
    return None
