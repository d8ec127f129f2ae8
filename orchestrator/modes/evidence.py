"""Experts write passages of what they know, the useful ones are kept, and one expert answers with them before it.

Knowledge Card / CooK (Feng et al., arXiv 2305.09955), bottom-up and top-down; MEXA (Yu et al., arXiv 2506.17113): experts' words are
evidence for who answers, not competing answers; with one expert it is BLADE's advisor (Li et al., arXiv 2403.18365) without its tuning.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domain.chat import Message
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall, Outcome
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.judge import question_of
from orchestrator.modes.base import Ask, Mode, NextExpert, Step, Steps, Write
from orchestrator.modes.parts import (
    alone,
    answers_among,
    experts_of,
    helper_call,
    last_or_best,
    one_choice_only,
    reading,
    said_by,
    writer_of,
)
from orchestrator.modes.single import Single
from orchestrator.options import Option, Options, read
from orchestrator.planner import aggregator_call, candidate_calls, candidate_deadline, repeated
from orchestrator.prompts import Block

NAME = "evidence"
OPTIONS: Options = {
    "gathering": Option("bottom_up", choices=("bottom_up", "top_down")),
    "passages": Option(1, 1, 5),
    "passage_tokens": Option(100, 16, 1000),
    "keep": Option(5, 1, 20),
    "check_facts": Option(False),
    "rounds": Option(3, 1, 5),
}
_WORDS_PER_TOKEN = 0.75
_TRUE_FROM = 5.0
"""Points of ten from which a passage counts as true."""
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NO = re.compile(r"\W*no\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Passage:
    """What one expert has written."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    context: AggregationContext
    experts: tuple[ExpertCard, ...]
    num_passages: int
    """Of each expert, bottom up."""
    num_rounds: int
    """Of asking for more, top down."""
    keep: int
    reader: ExpertCard
    why: str

    is_alone = False
    is_known_ahead = False
    others = ()

    @property
    def announced(self) -> str:
        return f"{NAME}:{self.reader.id}"

    @property
    def num_calls(self) -> int:
        if self.num_rounds:
            return 2 * self.num_rounds + 1
        written = len(self.experts) * self.num_passages
        return written + (min(self.keep, written) if self._checks else 0) + 1

    @property
    def _checks(self) -> bool:
        return bool(read(self.context.options, OPTIONS, "check_facts"))

    def steps(self) -> Steps:
        context, by = self.context, self.announced
        passages, stage, told = yield from (self._asked_for() if self.num_rounds else self._gathered())
        why = f"{self.why}; {told}"
        blocks = [Block(f"passage by {passage.source}", passage.text) for passage in passages]
        messages, cut = reading(context, self.reader, "evidence.answer", blocks) if blocks else (tuple(context.request.messages), "")
        (written,) = yield Write(aggregator_call(context, self.reader, messages), by, why + cut, stage)
        if answers_among([written]):
            return last_or_best(context, written, [], by, why + cut)
        return (yield from alone(context, NAME, f"{why}; {self.reader.id} gave no answer", stage + 1))

    def _gathered(self) -> Generator[Step, Any, tuple[list[Passage], int, str]]:
        """Bottom up: everybody writes, what is relevant and true is kept."""
        question = question_of(self.context)
        calls = tuple(self._passage_call(card, question, sample) for card in self.experts for sample in range(self.num_passages))
        outcomes = yield Ask(calls, 1, num_to_come=self.num_calls - len(calls))
        written = _passages(outcomes)
        kept = most_relevant(question, written, self.keep)
        told = f"{len(kept)} of {len(written)} passages are kept"
        if not (self._checks and kept):
            return kept, 2, told
        checks = tuple(helper_call(self.context, self.reader, "evidence.check", [Block("passage", one.text)])[0] for one in kept)
        verdicts = yield Ask(checks, 2, wait="aggregate", num_to_come=1)
        points = [_points(verdict) for verdict in verdicts]
        # One whose check cannot be read stays, behind those that are known to be true.
        order = sorted(range(len(kept)), key=lambda place: -(_TRUE_FROM if points[place] is None else points[place] or 0.0))
        true = [kept[place] for place in order if points[place] is None or (points[place] or 0.0) >= _TRUE_FROM]
        return true, 3, f"{told}, {len(true)} of them after their facts were checked"

    def _asked_for(self) -> Generator[Step, Any, tuple[list[Passage], int, str]]:
        """Top down: who answers says what it needs, and the best expert for that writes it."""
        passages: list[Passage] = []
        asked: set[str] = set()
        question, stage = question_of(self.context), 1
        for _ in range(self.num_rounds):
            blocks = [Block("question", question), *(Block(f"passage by {one.source}", one.text) for one in passages)]
            call, _cut = helper_call(self.context, self.reader, "evidence.need", blocks)
            (outcome,) = yield Ask((call,), stage, wait="aggregate", num_to_come=1)
            needed = said_by(said[0]).strip() if (said := answers_among([outcome])) else "no"
            stage += 1
            if _NO.match(needed):
                break
            wanted: tuple[Message, ...] = ({"role": "user", "content": needed},)
            card = yield NextExpert(wanted, frozenset(asked))
            if card is None:
                break
            asked.add(card.id)
            (outcome,) = yield Ask((self._passage_call(card, f"{question}\n\nWhat is needed: {needed}", 0),), stage, num_to_come=1)
            passages += _passages([outcome])
            stage += 1
        return passages[: self.keep], stage, f"{len(passages)} passages were asked for"

    def _passage_call(self, card: ExpertCard, question: str, sample: int) -> ExpertCall:
        max_tokens: int = read(self.context.options, OPTIONS, "passage_tokens")
        words = str(int(max_tokens * _WORDS_PER_TOKEN))
        call, _ = helper_call(self.context, card, "evidence.write", [Block("question", question)], max_tokens=max_tokens, words=words)
        params = {**call.params, **(repeated(call.params, self.context.request, sample) if sample else {})}
        return replace(call, params=params, deadline=candidate_deadline(self.context))


def make(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Mode]:  # noqa: ARG001
    """As many passages, then as many experts, as *max_calls* carries; with room for one call the best expert alone."""
    one_choice_only(context, NAME)
    if max_calls < 3:
        return context.decision, Single(candidate_calls(context, context.decision, max_calls=1)[0])
    reader, why = writer_of(context)
    experts, keep = tuple(experts_of(context)), read(context.options, OPTIONS, "keep")
    if read(context.options, OPTIONS, "gathering") == "top_down":
        num_rounds = min(read(context.options, OPTIONS, "rounds"), (max_calls - 1) // 2)
        return context.decision, Evidence(context, experts, 0, num_rounds, keep, reader, why)
    mode = Evidence(context, experts, read(context.options, OPTIONS, "passages"), 0, keep, reader, why)
    while mode.num_calls > max_calls and mode.num_passages > 1:
        mode = replace(mode, num_passages=mode.num_passages - 1)
    while mode.num_calls > max_calls and len(mode.experts) > 1:
        mode = replace(mode, experts=mode.experts[:-1])
    return context.decision, mode


def most_relevant(question: str, passages: Sequence[Passage], keep: int) -> list[Passage]:
    """Those of *passages* that share most with the *question*, at most *keep*, best first; each text once.

    Shared words count by how rare they are among the passages; ties stay in the order of the experts' scores. Words and not vectors, so
    that a mode stays pure; the experts were chosen by vectors already.
    """
    distinct = list({" ".join(passage.text.split()).casefold(): passage for passage in reversed(passages)}.values())[::-1]
    words = [set(_WORD.findall(passage.text.casefold())) for passage in distinct]
    num_with = Counter(word for found in words for word in found)
    wanted = set(_WORD.findall(question.casefold()))

    def shared(place: int) -> float:
        return math.fsum(math.log(1 + len(distinct) / num_with[word]) for word in words[place] & wanted)

    return [distinct[place] for place in sorted(range(len(distinct)), key=lambda place: -shared(place))[:keep]]


def _passages(outcomes: Sequence[Outcome]) -> list[Passage]:
    """What was written, without those who know nothing."""
    found = [Passage(one.expert_id, said_by(one)) for one in answers_among(outcomes)]
    return [one for one in found if one.text.strip(" .\n").casefold() != "nothing"]


def _points(verdict: Outcome) -> float | None:
    found = _NUMBER.findall(said_by(verdict)) if isinstance(verdict, Candidate) else []
    return min(10.0, float(found[0])) if found else None
