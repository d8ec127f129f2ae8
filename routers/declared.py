"""What experts declare: skills and exemplars. They count until measurements say better (``scoring.py``).

* A declared skill that has labelled questions is a claim to that skill; so is the name of a category, for its skills.
* A declared skill without labelled questions opens new ground: it is recognised by its name and by its experts' exemplars.
* An exemplar is an unlabelled question. Where labelled questions lie close, it is a claim to their skill and nothing new:
  a card with broad exemplars cannot draw queries away from skills that were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domain.experts import ExpertCard, ExpertRole
from routers.question_index import QuestionIndex, TextEncoder
from routers.skill_space import Floats

_COVERED = 0.5
"""Similarity to a labelled skill from which an exemplar belongs to it. Half of the questions that do belong have 0.65 and
more, few that do not reach 0.35."""
_SAME_NAME = 0.8
"""Cosine from which two names mean one skill ("roman numeral conversion", "roman numerals")."""
_LIFT = 0.1
"""Added to the similarity of new ground, which has no centre and few neighbours. docs/adr/0004-routing.md shows what three exemplars and
the names do then."""


@dataclass(frozen=True, slots=True)
class DeclaredSkills:
    """``skills`` are those that no labelled question has; ``by_expert`` every claim, in the spelling of the index."""

    skills: tuple[str, ...] = ()
    by_expert: Mapping[str, frozenset[str]] = field(default_factory=dict)
    evidence: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """Projected vectors (m, d) of names and exemplars."""
    skill_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Per row of ``evidence``, its place in ``skills``."""

    def similarities(self, projected: Floats) -> Floats:
        """How similar projected vectors (n, d) are to each of ``skills``: (n, skills)."""
        best = np.full((len(projected), len(self.skills)), -1.0, np.float32)
        if self.skills:
            for row, values in enumerate(projected @ self.evidence.T + _LIFT):
                np.maximum.at(best[row], self.skill_of, values)
        return np.minimum(best, 1.0)


async def read_declarations(
    encoder: TextEncoder, index: QuestionIndex, cards: Iterable[ExpertCard], descriptions: Mapping[str, str]
) -> DeclaredSkills:
    """What the enabled candidates among *cards* declare, read against the labelled questions of *index*."""
    candidates = [card for card in cards if card.enabled and ExpertRole.CANDIDATE in card.roles]
    known = await _known_names(encoder, index, {name for card in candidates for name in card.skills})
    claims: dict[str, set[str]] = {}
    evidence: dict[str, set[str]] = {}
    exemplars = list(dict.fromkeys(text for card in candidates for text in card.exemplars))
    projected = index.project(await encoder.encode(exemplars))
    covered = dict(zip(exemplars, _labelled_skill(index, projected), strict=True))
    for card in candidates:
        new = [name for name in card.skills if not known[name]]
        claims[card.id] = {skill for name in card.skills for skill in (known[name] or (name,))}
        for name in new:
            evidence.setdefault(name, {name}).update(filter(None, [f"{name}: {descriptions[name]}" if descriptions.get(name) else ""]))
        for text in card.exemplars:
            if skill := covered[text]:
                claims[card.id].add(skill)
                continue
            for name in new or (f"questions for {card.id}",):
                claims[card.id].add(name)
                evidence.setdefault(name, set()).add(text)
    skills = tuple(sorted(evidence))
    rows = [(i, text) for i, skill in enumerate(skills) for text in sorted(evidence[skill])]
    return DeclaredSkills(
        skills=skills,
        by_expert={expert: frozenset(names) for expert, names in claims.items()},
        evidence=index.project(await encoder.encode([text for _, text in rows])),
        skill_of=np.array([i for i, _ in rows], np.int64),
    )


async def _known_names(encoder: TextEncoder, index: QuestionIndex, names: set[str]) -> dict[str, tuple[str, ...]]:
    """Each declared name to the labelled skills that it means; empty for new ground."""
    spelled = {skill.casefold().strip(): skill for skill in index.skills}
    categories: dict[str, dict[str, None]] = {}
    for question in index.questions:
        if question.category:
            categories.setdefault(question.category.casefold().strip(), {}).update(dict.fromkeys(question.labels))
    ordered = sorted(names)
    known: dict[str, tuple[str, ...]] = {}
    for name, vector in zip(ordered, await encoder.encode(ordered), strict=True):
        key, nearest = name.casefold().strip(), index.nearest_name(vector)
        if key in spelled:
            known[name] = (spelled[key],)
        elif key in categories:
            known[name] = tuple(categories[key])
        elif nearest and nearest[1] >= _SAME_NAME and nearest[0] in index.skills:
            known[name] = (nearest[0],)
        else:
            known[name] = ()
    return known


def _labelled_skill(index: QuestionIndex, projected: Floats) -> list[str | None]:
    """Per projected exemplar the labelled skill that covers it, if one does."""
    if not index.skills:
        return [None] * len(projected)
    similarities, _ = index.compare(projected)
    best = similarities.argmax(axis=1)
    return [index.skills[i] if row[i] >= _COVERED else None for i, row in zip(best, similarities, strict=True)]
