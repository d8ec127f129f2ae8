"""An expert grades the candidates, and the best one is told as it is: best-of-n."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

from domain.chat import Message, text_of
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, Outcome
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, Chosen, Deliberation
from orchestrator.aggregation.fallback import is_answer
from orchestrator.aggregation.material import fitting, room_for, shown_text, told_cut, trimmed
from orchestrator.aggregation.prompts import answer_text
from orchestrator.aggregation.readers import reader_for
from orchestrator.aggregation.vote import Vote, all_alike
from orchestrator.options import Option, Options, read
from orchestrator.prompts import Block, fenced, instructions

MAX_PAIRWISE = 5
"""Candidates that are compared two by two: ten calls. More are graded one by one."""
_BEST_POINTS = 10.0
_POINTS: Mapping[str, float] = {"correctness": 3.0, "completeness": 1.0, "instructions": 1.0, "clarity": 1.0}
_BETTER = re.compile(r"BETTER\W{0,4}\s*(?P<said>1|2|TIE)\b", re.IGNORECASE)


class Judge:
    """``rubric``: each candidate gets points for three to five things, each apart from the others, and they are added by weight (DMoERM,
    arXiv 2403.01197): n calls. ``pairwise``: every two candidates are compared (Copeland's count), for up to five: n (n - 1) / 2 calls.

    A judge whose words cannot be read has no say about that answer, or that pair; where nothing of what it says can be read, the candidates
    vote. Ties go to the answer that more candidates gave, then to the one that was routed first.
    """

    name: AggregatorName = "judge"
    calls_expert = True
    writes = False
    options: Options = {  # noqa: RUF012 - never changed
        "judging": Option("rubric", choices=("rubric", "pairwise")),
        "rubric": Option(_POINTS, 3, 5),
        "judge_expert": Option(None),
    }

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:
        return _judge(context)[0]

    def without_expert(self, context: AggregationContext) -> str:  # noqa: ARG002 - the port's signature
        return Vote.name

    def num_calls(self, context: AggregationContext, num_candidates: int) -> int:
        if num_candidates < 2 or self.expert_for(context) is None:
            return 0
        return num_candidates * (num_candidates - 1) // 2 if self._is_pairwise(context, num_candidates) else num_candidates

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen | Deliberation:
        judge, why = _judge(context)
        if judge is None:
            chosen = Vote().decide(context, candidates)
            return Chosen(chosen.candidate, f"{why}, so {chosen.why}", chosen.by)
        if all_alike(context.request, candidates):
            return Chosen(candidates[0], f"all {len(candidates)} candidates say the same, so nobody had to judge them", self.name)
        told = fitting(context.request, candidates)
        if len(told) == 1:
            return Chosen(told[0], f"only {told[0].expert_id} of {len(candidates)} candidates answered what was asked", self.name)
        by = f"{self.name}:{judge.id}"
        if self._is_pairwise(context, len(told)):
            pairs = _pairs(len(told))
            calls, cut = _compared(context, judge, told, pairs)
            return Deliberation(calls, partial(_by_pairs, context, told, pairs, f"{why}{cut}"), by, why)
        weights: Mapping[str, float] = read(context.options, self.options, "rubric")
        calls, cut = _graded(context, judge, told, weights)
        return Deliberation(calls, partial(_by_points, context, told, weights, f"{why}{cut}"), by, why)

    def _is_pairwise(self, context: AggregationContext, num_candidates: int) -> bool:
        return read(context.options, self.options, "judging") == "pairwise" and num_candidates <= MAX_PAIRWISE


def _judge(context: AggregationContext) -> tuple[ExpertCard | None, str]:
    named = context.options.get("judge_expert")
    card = context.snapshot.experts.get(named) if isinstance(named, str) else None
    if card is not None and context.usable(card):
        return card, f"the strategy names {card.id}"
    return reader_for(context)


def _call(context: AggregationContext, judge: ExpertCard, system: str, material: str) -> ExpertCall:
    messages: tuple[Message, ...] = ({"role": "system", "content": system}, {"role": "user", "content": material})
    return ExpertCall(judge, messages, {**judge.sampling}, context.deadline, context.request.id, CallRole.JUDGE, again=context.again)


def question_of(context: AggregationContext) -> str:
    """The conversation as text."""
    return "\n\n".join(f"{message.get('role')}: {text}" for message in context.request.messages if (text := text_of(message)))


def _graded(
    context: AggregationContext, judge: ExpertCard, candidates: Sequence[Candidate], weights: Mapping[str, float]
) -> tuple[tuple[ExpertCall, ...], str]:
    points, form = "\n".join(f"- {name}" for name in weights), "\n".join(f"{name}: <0 to 10>" for name in weights)
    system = instructions("judge.rubric", context.strategy.prompts, points=points, form=form)
    question, calls, told = question_of(context), list[ExpertCall](), ""
    for candidate in candidates:
        before = [question, shown_text(answer_text(candidate))]
        after, cut = trimmed(before, room_for(judge, context.request, (), system))
        told += told_cut(["the question", candidate.expert_id], before, after, cut, judge.id)
        calls.append(_call(context, judge, system, fenced([Block("question", after[0]), Block("answer", after[1])])))
    return tuple(calls), told


def _by_points(
    context: AggregationContext, candidates: Sequence[Candidate], weights: Mapping[str, float], why: str, verdicts: Sequence[Outcome]
) -> Chosen:
    lines = {name: _line_of(name) for name in weights}
    points = [_read_points(verdict, weights, lines) for verdict in verdicts]
    known = [(score, position) for position, score in enumerate(points) if score is not None]
    if not known:
        return _unread(context, candidates, why, "its grades cannot be read")
    best = max(score for score, _ in known)
    chosen = Vote().decide(context, [candidates[position] for score, position in known if score == best])
    told = ", ".join(f"{c.expert_id} {'unread' if s is None else f'{s:.2f}'}" for c, s in zip(candidates, points, strict=True))
    return Chosen(chosen.candidate, f"{why}; grades: {told}", "judge")


def _line_of(name: str) -> re.Pattern[str]:
    """Finds the points for *name*, however the line is dressed up. What stands before it is bounded, or a judge that fills its answer with
    empty lines is read once for each of them."""
    return re.compile(rf"(?im)^[^\w\n]{{0,8}}{re.escape(name)}\W{{0,4}}\s*[:=]\W{{0,3}}(\d+(?:\.\d+)?)")


def _read_points(verdict: Outcome, weights: Mapping[str, float], lines: Mapping[str, re.Pattern[str]]) -> float | None:
    """The weighted mean of what *verdict* gives, in [0, 1]; None where it leaves a point out."""
    if not isinstance(verdict, Candidate):
        return None
    text, total = shown_text(verdict.text), 0.0
    for name, weight in weights.items():
        found = lines[name].findall(text)
        if not found or float(found[-1]) > _BEST_POINTS:
            return None
        total += weight * float(found[-1])
    return total / (_BEST_POINTS * sum(weights.values()))


def _pairs(num_candidates: int) -> list[tuple[int, int]]:
    """Every two, as they are shown: who stands first alternates, since judges prefer a place."""
    return [(a, b) if (a + b) % 2 else (b, a) for a, b in combinations(range(num_candidates), 2)]


def _compared(
    context: AggregationContext, judge: ExpertCard, candidates: Sequence[Candidate], pairs: Sequence[tuple[int, int]]
) -> tuple[tuple[ExpertCall, ...], str]:
    system = instructions("judge.pairwise", context.strategy.prompts)
    question, calls, told = question_of(context), list[ExpertCall](), ""
    for one, other in pairs:
        before = [question, *(shown_text(answer_text(candidates[position])) for position in (one, other))]
        after, cut = trimmed(before, room_for(judge, context.request, (), system))
        told += told_cut(["the question", candidates[one].expert_id, candidates[other].expert_id], before, after, cut, judge.id)
        blocks = [Block("question", after[0]), Block("answer 1", after[1]), Block("answer 2", after[2])]
        calls.append(_call(context, judge, system, fenced(blocks)))
    return tuple(calls), told


def _by_pairs(
    context: AggregationContext,
    candidates: Sequence[Candidate],
    pairs: Sequence[tuple[int, int]],
    why: str,
    verdicts: Sequence[Outcome],
) -> Chosen:
    wins, num_read = [0.0] * len(candidates), 0
    for pair, verdict in zip(pairs, verdicts, strict=True):
        found = _BETTER.findall(shown_text(verdict.text)) if isinstance(verdict, Candidate) and is_answer(verdict) else []
        num_read += bool(found)
        said = found[-1].upper() if found else "TIE"
        for place, position in enumerate(pair, 1):
            wins[position] += 0.5 if said == "TIE" else float(said == str(place))
    if not num_read:
        return _unread(context, candidates, why, "its comparisons cannot be read")
    best = max(wins)
    chosen = Vote().decide(context, [candidate for candidate, won in zip(candidates, wins, strict=True) if won == best])
    told = ", ".join(f"{candidate.expert_id} {won:g}" for candidate, won in zip(candidates, wins, strict=True))
    return Chosen(chosen.candidate, f"{why}; wins of {len(candidates) - 1}: {told}", "judge")


def _unread(context: AggregationContext, candidates: Sequence[Candidate], why: str, what: str) -> Chosen:
    chosen = Vote().decide(context, candidates)
    return Chosen(chosen.candidate, f"{why}; {what}, so {chosen.why}", chosen.by)
