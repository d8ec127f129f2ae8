"""From a router's scores to who is asked and what is told: the one place where scores are adjusted, right before the pick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from domain.adjustments import AS_SCORED
from domain.routing import PickRule, RoutingQuery, ScoredExpert
from routers import pick
from routers.adjust import Terms, adjusted_scores, terms_of

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query's experts in the order in which they came, with the scores that decide."""

    expert_ids: Sequence[str]
    scores: Floats
    """(E,)"""
    why: Callable[[int], str]
    """Of one expert, by its place; pure, asked when somebody reads it."""

    def selected(self, rule: PickRule, *, seed: int) -> tuple[str, ...]:
        """Who is asked, best first."""
        return tuple(self.expert_ids[i] for i in pick.pick(self.scores.tolist(), rule, seed=seed))

    def why_of(self, expert_id: str) -> str:
        return self.why(self.expert_ids.index(expert_id))

    def considered(self, selected: Sequence[str]) -> tuple[ScoredExpert, ...]:
        """Every expert, best score first; equals in the order in which they came."""
        order = np.argsort(-self.scores, kind="stable").tolist()
        return ScoredExpert.all_explained_by(self.expert_ids, self.scores.tolist(), set(selected), self.why, order)


def rank(query: RoutingQuery, scores: Floats, why: Callable[[int], str]) -> Ranking:
    """*scores* (E,) of ``query.experts``, each in [0, 1], as the query wants them adjusted."""
    ids = [card.id for card in query.experts]
    if query.adjustments is AS_SCORED or not query.adjustments.moves_scores:
        return Ranking(ids, scores, why)
    terms = terms_of(query.experts, query.adjustments, query.circumstances)
    values: list[float] = scores.tolist()
    return Ranking(ids, np.array(adjusted_scores(values, terms)), partial(_told, values, terms, why))


def _told(scores: Sequence[float], terms: Sequence[Terms], why: Callable[[int], str], place: int) -> str:
    return f"{terms[place].told(scores[place])}: {why(place)}"
