"""Which skills a query needs, by comparison with labelled questions. No model is called but the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp
from typing import Protocol

import numpy as np

from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingQuery
from domain.skills import SkillMatch
from routers.conversation import RoutedText, follows, is_fragment, routed_text
from routers.index_holder import RoutingIndex
from routers.options import SkillsOptions
from routers.question_index import Neighbour, TextEncoder
from routers.skill_space import Floats

_MAX_SKILLS = 8
_MIN_WEIGHT = 0.02
"""Shares below this are dropped: they change no decision and clutter every explanation."""
_NUM_NEAREST = 5
"""Skills that a refusal names first."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a query needs, and how that was found."""

    skills: tuple[SkillMatch, ...]
    """Best first, weights summing to 1. Empty when nothing known is similar enough."""
    nearest: tuple[SkillMatch, ...]
    """The most similar skills whether or not they are similar enough (weight 0): what a refusal names."""
    similarity: float
    """Of the best skill, a cosine in [-1, 1]."""
    fragment: bool = False
    """Whether the last turn leans on what came before it."""
    with_context: bool = False
    """Whether it was read together with the turns before it."""
    text: str = ""
    """For who reads instead of comparing: the last turn, after those that it may refer to unless it is clear alone."""
    neighbours: tuple[Neighbour, ...] = ()
    category: str | None = None
    """The category that most of the neighbours with these skills have."""
    source: str = "embedding"
    calls: tuple[Outcome, ...] = ()
    """Calls that were made to find out."""
    vector: bytes | None = field(default=None, repr=False)
    """(D) float16: the text as it was read; None where none was encoded."""
    notes: tuple[str, ...] = ()
    """What else a person should know: a fallback that was taken, keywords that are no known skill."""


class Annotator(Protocol):
    """Finds the skills of a query."""

    async def annotate(
        self, query: RoutingQuery, snapshot: RegistrySnapshot, index: RoutingIndex, options: SkillsOptions
    ) -> Annotation: ...


class EmbeddingAnnotator:
    """Skills by similarity to labelled questions, and to what experts declare where no labelled question is."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    async def annotate(
        self,
        query: RoutingQuery,
        snapshot: RegistrySnapshot,  # noqa: ARG002 - the port's signature
        index: RoutingIndex,
        options: SkillsOptions,
    ) -> Annotation:
        """One encoder call; one more for each fragment between the last turn, when it is one, and what it leans on."""
        text = routed_text(query.request.messages)
        if not text.last or not index.skills:
            return Annotation(skills=(), nearest=(), similarity=0.0, text=text.after(len(text.earlier)))
        readings = await self._read(text.texts, index)
        alone = reading = readings[0]
        read_by_others, fragment = text.last, is_fragment(text.last, alone.best)
        if text.earlier and (fragment or alone.best < options.floor):
            num_turns, context, together = await self._with_context(text, readings, index)
            read_by_others = text.after(num_turns)
            fragment = fragment and follows(text.last, context.best, together.best)
            # When what came before is itself like nothing known, it explains nothing.
            if fragment and not together.best < options.floor <= alone.best:
                reading = together
        ranked = _ranked(reading.similarities)
        skills = _matched(index.skills, ranked, floor=options.floor, temperature=options.temperature)
        neighbours = tuple(reading.neighbours)
        return Annotation(
            skills=skills,
            nearest=_nearest(index.skills, ranked),
            similarity=reading.best,
            fragment=fragment,
            with_context=reading is not alone,
            text=read_by_others,
            neighbours=neighbours,
            category=majority_category(neighbours, skills),
            vector=reading.vector.astype("<f2").tobytes(),
        )

    async def _with_context(self, text: RoutedText, readings: Sequence[_Reading], index: RoutingIndex) -> tuple[int, _Reading, _Reading]:
        """How many turns back the context of the last one begins; the context alone, and with the last turn after it.

        *readings* are those of ``text.texts``. A step back encodes one new text: the others were read when they were new.
        """
        together, context = readings[1:]
        turn, num_turns = context, 1
        while num_turns < len(text.earlier) and is_fragment(text.earlier[num_turns - 1], turn.best):
            before = text.earlier[num_turns]
            pair = f"{before}\n{text.earlier[num_turns - 1]}"
            further = (before, pair, text.context(num_turns + 1), text.after(num_turns + 1))
            turn_before, both, *longer = await self._read(further, index)
            if not follows(text.earlier[num_turns - 1], turn_before.best, both.best, is_last=False):
                break
            turn, num_turns = turn_before, num_turns + 1
            context, together = longer
        return num_turns, context, together

    async def _read(self, texts: Sequence[str], index: RoutingIndex) -> list[_Reading]:
        vectors = await self._encoder.encode(texts)
        compared = index.compare(vectors)
        return [_Reading(*of_text) for of_text in zip(*compared, vectors, strict=True)]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a text is similar to."""

    similarities: Floats
    neighbours: Sequence[Neighbour]
    vector: Floats

    @property
    def best(self) -> float:
        return float(self.similarities.max())


def match_skills(names: Sequence[str], similarities: Floats, *, floor: float, temperature: float) -> tuple[SkillMatch, ...]:
    """The skills at or above *floor*, best first, with weights proportional to ``exp(similarity / temperature)``.

    At most ``_MAX_SKILLS``; what would weigh less than ``_MIN_WEIGHT`` is left out. Ties stand in the order of *names*.
    """
    return _matched(names, _ranked(similarities), floor=floor, temperature=temperature)


Ranked = Sequence[tuple[int, float]]
"""The most similar skills, at most ``_MAX_SKILLS``, best first: number and similarity. Plain numbers: they are too few for arrays."""


def _ranked(similarities: Floats) -> Ranked:
    order = np.argsort(-similarities, kind="stable")[:_MAX_SKILLS]
    return list(zip(order.tolist(), similarities[order].tolist(), strict=True))


def _matched(names: Sequence[str], ranked: Ranked, *, floor: float, temperature: float) -> tuple[SkillMatch, ...]:
    able = [(i, similarity) for i, similarity in ranked if similarity >= floor]
    if not able:
        return ()
    best = able[0][1]
    weights = [exp((similarity - best) / temperature) for _, similarity in able]
    least = _MIN_WEIGHT * sum(weights)
    kept = [(i, similarity, weight) for (i, similarity), weight in zip(able, weights, strict=True) if weight >= least]
    total = sum([weight for _, _, weight in kept])
    return tuple([SkillMatch(names[i], similarity, weight / total) for i, similarity, weight in kept])


def _nearest(names: Sequence[str], ranked: Ranked) -> tuple[SkillMatch, ...]:
    """The most similar skills, best first, with weight 0."""
    return tuple([SkillMatch(names[i], similarity, 0.0) for i, similarity in ranked[:_NUM_NEAREST]])


def majority_category(neighbours: Sequence[Neighbour], skills: Sequence[SkillMatch]) -> str | None:
    """The category with most similarity among the *neighbours* that have one of *skills*; None when none has one."""
    wanted = {match.skill for match in skills}
    votes: dict[str, float] = {}
    for neighbour in neighbours:
        category = neighbour.question.category
        if category and wanted.intersection(neighbour.question.labels):
            votes[category] = votes.get(category, 0.0) + max(neighbour.similarity, 0.0)
    return max(votes, key=lambda category: votes[category]) if votes else None


def fell_back(annotation: Annotation, reason: str) -> Annotation:
    """*annotation*, which was made by similarity because of *reason*."""
    return replace(annotation, notes=(*annotation.notes, f"{reason}, so skills were found by similarity"))
