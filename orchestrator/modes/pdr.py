"""Drafts at once, distilled into a small workspace, refined; in rounds.

Parallel-Distill-Refine (Madaan et al., "Rethinking Thinking Tokens", arXiv 2510.01123). With one draft a round it is sequential
refinement. The context of every call is bounded by the workspace, so the tokens that are waited for one after the other stay few while
all of them together may be many: the trace tells both.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from domain.chat import Message
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.judge import question_of
from orchestrator.aggregation.vote import all_alike
from orchestrator.modes.base import Ask, Mode, Nobody, Step, Steps, Told, Write
from orchestrator.modes.parts import (
    answers_among,
    best_so_far,
    draft_call,
    experts_of,
    failures_among,
    helper_call,
    last_or_best,
    one_choice_only,
    reading,
    said_by,
    writer_of,
)
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls, seed_of
from orchestrator.prompts import Block

NAME = "pdr"
OPTIONS: Options = {
    "drafts": Option(3, 1, 8),
    "rounds": Option(1, 1, 4),
    "workspace_tokens": Option(256, 16, 16_384),
    "distil": Option("summary", choices=("summary", "top_k", "random_k")),
    "keep": Option(2, 1, 8),
}
_WORDS_PER_TOKEN = 0.75


@dataclass(frozen=True, slots=True)
class Pdr:
    context: AggregationContext
    experts: tuple[ExpertCard, ...]
    num_drafts: int
    num_rounds: int
    reader: ExpertCard
    """Distils, and writes the answer."""
    why: str

    is_alone = False
    others = ()
    is_known_ahead = False

    @property
    def announced(self) -> str:
        return f"{NAME}:{self.reader.id}"

    @property
    def num_calls(self) -> int:
        return self.num_rounds * (self.num_drafts + self._distils) + 1

    @property
    def _distils(self) -> bool:
        """Whether somebody is asked to; of one draft there is nothing to distil."""
        return self.num_drafts > 1 and read(self.context.options, OPTIONS, "distil") == "summary"

    def steps(self) -> Steps:
        context, by, why = self.context, self.announced, self.why
        drafts: list[Candidate] = []
        workspace = ""
        for round_ in range(1, self.num_rounds + 1):
            calls = tuple(self._draft(position, workspace) for position in range(self.num_drafts))
            rest = (self.num_rounds - round_) * (self.num_drafts + self._distils) + self._distils + 1
            outcomes = yield Ask(calls, 2 * round_ - 1, so_far=best_so_far(context, drafts, by, why), num_to_come=rest)
            found = answers_among(outcomes)
            if not found and not drafts:
                return Nobody(failures_among(outcomes))
            if not found:
                why += f"; nobody answered in round {round_}, so the workspace before it was used"
                break
            drafts = found
            if len(found) > 1 and all_alike(context.request, found):
                told = f"{why}; all {len(found)} drafts of round {round_} say the same, so there was nothing to refine"
                return Told(found[0], NAME, told, is_own=round_ == 1)
            workspace, told = yield from self._distilled(found, workspace, round_, by, why)
            why += told
        messages, cut = reading(context, self.reader, "pdr.answer", [Block("workspace", workspace)])
        call = aggregator_call(context, self.reader, messages)
        stage = 2 * self.num_rounds + 1
        (written,) = yield Write(call, by, why + cut, stage, so_far=best_so_far(context, drafts, by, why + cut))
        return last_or_best(context, written, drafts, by, why + cut)

    def _draft(self, position: int, workspace: str) -> ExpertCall:
        card, sample = self.experts[position % len(self.experts)], position // len(self.experts)
        messages: Sequence[Message] = self.context.request.messages
        if workspace:
            messages = reading(self.context, card, "pdr.draft", [Block("workspace", workspace)])[0]
        return draft_call(self.context, card, messages, sample=sample)

    def _distilled(self, drafts: Sequence[Candidate], before: str, round_: int, by: str, why: str) -> Generator[Step, Any, tuple[str, str]]:
        """The workspace that *drafts* make, at most as long as it may be; and a word on how it was made."""
        options, how = self.context.options, read(self.context.options, OPTIONS, "distil")
        max_tokens: int = read(options, OPTIONS, "workspace_tokens")
        room = int(max_tokens * self.reader.chars_per_token)
        if not self._distils:
            kept = list(drafts)
            if how == "random_k":
                kept = Random(seed_of(self.context.request) + round_).sample(kept, min(read(options, OPTIONS, "keep"), len(kept)))
            elif how == "top_k":
                kept = kept[: read(options, OPTIONS, "keep")]
            share = room // len(kept)
            return "\n\n".join(_cut(said_by(draft), share) for draft in kept), ""
        blocks = [Block("question", question_of(self.context))]
        blocks += [Block("earlier workspace", before)] if before else []
        blocks += [Block(f"attempt {number}", said_by(draft)) for number, draft in enumerate(drafts, 1)]
        words = str(int(max_tokens * _WORDS_PER_TOKEN))
        call, cut = helper_call(self.context, self.reader, "pdr.distil", blocks, max_tokens=max_tokens, words=words)
        (outcome,) = yield Ask((call,), 2 * round_, so_far=best_so_far(self.context, drafts, by, why), wait="aggregate", num_to_come=1)
        if distilled := answers_among([outcome]):
            return _cut(said_by(distilled[0]), room), cut
        share = room // len(drafts)
        told = f"{cut}; {self.reader.id} distilled nothing, so the drafts were cut"
        return "\n\n".join(_cut(said_by(draft), share) for draft in drafts), told


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """As many rounds, then as many drafts, as *max_calls* carries; with room for one call the best expert alone."""
    one_choice_only(context, NAME)
    num_drafts, asked = read(context.options, OPTIONS, "drafts"), read(context.options, OPTIONS, "rounds")
    reader, why = writer_of(context)
    smaller = [*((rounds, num_drafts) for rounds in range(asked, 0, -1)), *((1, few) for few in range(num_drafts - 1, 0, -1))]
    for num_rounds, drafts in smaller:
        mode = Pdr(context, tuple(experts_of(context)), drafts, num_rounds, reader, why)
        if mode.num_calls <= max_calls:
            return context.decision, mode
    return context.decision, Single(candidate_calls(context, context.decision, max_calls=1)[0])


def _cut(text: str, length: int) -> str:
    """The end of *text*, where answers stand."""
    return text if len(text) <= length else f"… {text[-length:]}"
