"""Which experts to admit, from few labelled examples: score, diversity, and whether a right answer was more than luck.

After *Leveraging Open Knowledge for Advancing Task Expertise in LLMs*, which picks candidates for a mixture by a handful of labelled
examples, drops those that are right without reasoning that leads there, and keeps the chosen ones diverse. Here an answer counts as
much as its own evidence carries it: the probability that the expert gave it, where it tells log-probabilities; whether its reasoning
arrives at it, where it shows reasoning; else it counts in full, and the small number of examples is met by shrinking.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domain.answers import normalise_answer, tidy
from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.answers.asking import Asked
from evaluation.comparison.arms import Floats
from evaluation.intervals import wilson_interval

_SURE = 0.5
"""Mean probability of a token below which a right answer counts as a lucky one: the expert would as soon have said something else."""
_SHRINKING = 2.0
"""Examples that the pool's mean weighs."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What one right or wrong answer is worth as evidence."""

    value: float
    """In [0, 1]; 0 for a wrong one."""
    correct: bool
    lucky: bool = False
    by: str = "answer"
    """``log-probability``, ``reasoning`` or ``answer``: what it was judged by."""
    known: bool = True
    """Whether anybody knows how the expert did on this example; where not, it counts for nothing."""


UNKNOWN = Credit(0.0, correct=False, known=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against one candidate."""

    expert_id: str
    proposed: bool
    why: str
    rank: int | None
    """Its place in the order of proposal; None when it is not proposed."""
    score: float
    """Mean credit, shrunk towards the pool's."""
    similarity: float
    """To the most similar of those before it and those that are there, in [0, 1]; 0 for the first."""
    most_similar: str | None
    value: float
    """Score minus the weight of diversity times the similarity."""
    coverage_gain: float
    """Share of the examples that it answers and nobody before it does."""
    num_examples: int
    """On which it is known how it did."""
    num_correct: int
    num_lucky: int
    interval: tuple[float, float]
    """95 % Wilson of right answers that were no luck."""
    judged_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """Whom to admit, and the evidence for all: those proposed first, in their order."""

    proposed: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    coverage_before: float
    coverage_after: float
    chance: float
    """Share of the examples that guessing gets right."""


def credit_of(question: LabelledQuestion, asked: Asked) -> Credit:
    """What the answer to *question* is worth."""
    reply = asked.reply
    if asked.correct is None:
        return UNKNOWN
    if not asked.correct:
        return Credit(0.0, correct=False, by="log-probability" if reply.logprob is not None else "answer")
    if reply.logprob is not None:
        probability = min(1.0, math.exp(reply.logprob))
        return Credit(probability if probability >= _SURE else 0.0, correct=True, lucky=probability < _SURE, by="log-probability")
    if reply.reasoning.strip():
        leads_there = _arrives(reply.reasoning, reply.text, question)
        return Credit(float(leads_there), correct=True, lucky=not leads_there, by="reasoning")
    return Credit(1.0, correct=True)


def chance_of(questions: Sequence[LabelledQuestion]) -> float:
    """Share that guessing gets right: one of the options, where there are some."""
    return sum(1 / len(question.options) if question.options else 0.0 for question in questions) / max(1, len(questions))


def propose(
    candidates: Sequence[str],
    answered: Sequence[Sequence[Credit]],
    *,
    present: Sequence[tuple[str, Sequence[Credit]]] = (),
    slots: int,
    diversity: float,
    chance: float = 0.0,
) -> Proposal:
    """At most *slots* of *candidates*, greedily by ``score - diversity · similarity``; *answered* has a list of examples for each.

    Similarity is the cosine of two experts' credits over the examples. *present* are experts that are there already, with which
    candidates are compared too. Left out: who is right no more often than by guessing, and who adds no example. Raises ``InvalidRequest``
    without a candidate or an example.
    """
    if not candidates or not answered[0]:
        raise InvalidRequest("there is nobody to admit: it takes a candidate at least, and an example that one of them was asked")
    pool = _Pool.of(candidates, answered, present, diversity)
    before, left, reasons, evidence = pool.coverage, list(range(len(candidates))), dict[int, str](), list[Evidence]()
    for number, row in enumerate(answered):
        if _bounds(row)[0] <= chance:
            reasons[number] = _no_better_than(chance, row)
            left.remove(number)
    while left and len(evidence) < slots:
        number = max(left, key=lambda n: (pool.value(n), pool.scores[n], -n))
        left.remove(number)
        gain = pool.gain(number)
        if gain <= 0 and pool.there:
            reasons[number] = "answers nothing that the others do not"
            continue
        why = f"{100 * gain:.0f} % of the examples more, score {pool.scores[number]:.2f}"
        evidence.append(pool.evidence(number, why, rank=len(evidence) + 1))
        pool.admit(number)
    proposed = tuple(one.expert_id for one in evidence)
    for number in sorted({*left, *reasons}, key=lambda n: -pool.scores[n]):
        evidence.append(pool.evidence(number, reasons.get(number, "no slot is left")))
    return Proposal(proposed, tuple(evidence), before, pool.coverage, chance)


@dataclass(slots=True)
class _Pool:
    """The candidates, and who is there beside them so far."""

    names: Sequence[str]
    answered: Sequence[Sequence[Credit]]
    values: Floats
    """(candidates, examples) credits."""
    scores: Floats
    there: dict[str, Floats]
    """Credits (examples) by name; NaN where nothing is known."""
    covered: Floats
    """(examples) the best credit of those that are there."""
    diversity: float

    @classmethod
    def of(
        cls, names: Sequence[str], answered: Sequence[Sequence[Credit]], present: Sequence[tuple[str, Sequence[Credit]]], diversity: float
    ) -> _Pool:
        values: Floats = np.array([[_value(credit) for credit in row] for row in answered], np.float64)
        there: dict[str, Floats] = {name: np.array([_value(credit) for credit in row], np.float64) for name, row in present}
        num_known = (~np.isnan(values)).sum(axis=1)
        pool_mean = float(np.nansum(values)) / max(1, int(num_known.sum()))
        scores = (np.nansum(values, axis=1) + _SHRINKING * pool_mean) / (num_known + _SHRINKING)
        covered = np.max(np.nan_to_num(np.stack([*there.values(), np.zeros(values.shape[1])])), axis=0)
        return cls(names, answered, values, scores, there, covered, diversity)

    @property
    def coverage(self) -> float:
        return float((self.covered > 0).mean())

    def value(self, number: int) -> float:
        return float(self.scores[number]) - self.diversity * self.nearest(number)[0]

    def gain(self, number: int) -> float:
        return float(((self.values[number] > 0) & (self.covered <= 0)).mean())

    def admit(self, number: int) -> None:
        self.there[self.names[number]] = self.values[number]
        self.covered = np.maximum(self.covered, np.nan_to_num(self.values[number]))

    def nearest(self, number: int) -> tuple[float, str | None]:
        """Cosine to the most similar of those that are there, over the examples that are known of both, and its name."""
        best: tuple[float, str | None] = (0.0, None)
        for name, theirs in self.there.items():
            both = ~np.isnan(self.values[number]) & ~np.isnan(theirs)
            values, other = self.values[number][both], theirs[both]
            scale = float(np.linalg.norm(values) * np.linalg.norm(other))
            similarity = float(values @ other) / scale if scale > 0 else 0.0
            if similarity > best[0]:
                best = (similarity, name)
        return best

    def evidence(self, number: int, why: str, *, rank: int | None = None) -> Evidence:
        row, (similarity, most_similar) = self.answered[number], self.nearest(number)
        return Evidence(
            expert_id=self.names[number],
            proposed=rank is not None,
            why=why,
            rank=rank,
            score=float(self.scores[number]),
            similarity=similarity,
            most_similar=most_similar,
            value=self.value(number),
            coverage_gain=self.gain(number),
            num_examples=sum(credit.known for credit in row),
            num_correct=sum(credit.correct for credit in row),
            num_lucky=sum(credit.lucky for credit in row),
            interval=_bounds(row),
            judged_by=tuple(dict.fromkeys(credit.by for credit in row if credit.correct)),
        )


def _bounds(row: Sequence[Credit]) -> tuple[float, float]:
    return wilson_interval(sum(credit.correct and not credit.lucky for credit in row), sum(credit.known for credit in row))


def _value(credit: Credit) -> float:
    return credit.value if credit.known else float("nan")


def _no_better_than(chance: float, row: Sequence[Credit]) -> str:
    if not any(credit.known for credit in row):
        return "not measured on any of the examples"
    if not any(credit.correct for credit in row):
        return "never right"
    if all(credit.lucky for credit in row if credit.correct):
        return "every right answer was lucky"
    return f"may be guessing: {100 * chance:.0f} % are right by chance"


def _arrives(reasoning: str, answer: str, question: LabelledQuestion) -> bool:
    """Whether *reasoning* says what is answered, or the reference: in so many words, or last as its own answer."""
    said = re.sub(r"\s+", " ", tidy(reasoning)).casefold()
    wanted = {normalise_answer(answer), normalise_answer(question.answer)} - {""}
    return normalise_answer(reasoning) in wanted or any(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", said) for words in wanted)
