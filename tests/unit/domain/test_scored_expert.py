"""A considered expert whose reason is put into words when somebody reads it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest

from domain.routing import RoutingDecision, ScoredExpert

PLAIN = ScoredExpert("a", 0.5, True, "measured")


class Words:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.num_asked = 0

    def __call__(self) -> str:
        self.num_asked += 1
        return "measured"


def test_the_words_are_made_once_and_when_they_are_read() -> None:
    words = Words()
    expert = ScoredExpert.explained_by("a", 0.5, True, words)

    assert (expert.expert_id, expert.score, expert.selected, words.num_asked) == ("a", 0.5, True, 0)
    assert (expert.why, expert.why, words.num_asked) == ("measured", "measured", 1)


@pytest.mark.parametrize(
    "seen",
    [
        lambda expert: expert,
        lambda expert: {expert: 1},
        repr,
        asdict,
        pickle.dumps,
        lambda expert: pickle.loads(pickle.dumps(expert)),
        copy.copy,
        copy.deepcopy,
        lambda expert: replace(expert, selected=False),
    ],
)
def test_it_is_a_value_like_any_other(seen: Callable[[ScoredExpert], Any]) -> None:
    """Compared, hashed, shown, copied and pickled it is what it would be with its words in it, also when nobody read them before."""
    assert seen(ScoredExpert.explained_by("a", 0.5, True, Words())) == seen(PLAIN)


def test_other_words_are_another_value() -> None:
    assert ScoredExpert.explained_by("a", 0.5, True, lambda: "declared") != PLAIN


def test_it_cannot_be_changed() -> None:
    expert: Any = ScoredExpert.explained_by("a", 0.5, True, Words())
    for field in ("why", "score"):
        with pytest.raises(FrozenInstanceError):
            setattr(expert, field, "x")


# --- a decision's detail, deferred in the same way ----------------------------------------------------------------------


def deferred() -> tuple[RoutingDecision, list[int]]:
    made: list[int] = []

    def detail() -> dict[str, Any]:
        made.append(1)
        return {"floor": 0.3}

    return RoutingDecision("skills", ("a",), reason="measured").detailed_by(detail), made


def test_a_detail_is_made_once_and_when_it_is_read() -> None:
    decision, made = deferred()
    altered = decision.altered(router="cascade", reason="cheap")

    assert (altered.router, altered.reason, altered.is_detailed, made) == ("cascade", "cheap", False, [])
    assert (altered.detail, altered.detail, altered.is_detailed, made) == ({"floor": 0.3}, {"floor": 0.3}, True, [1])
    assert altered.altered(reason="dear") == replace(altered, reason="dear")


@pytest.mark.parametrize(
    "seen", [lambda one: one, repr, asdict, pickle.dumps, copy.copy, copy.deepcopy, lambda one: replace(one, router="x")]
)
def test_a_decision_with_a_deferred_detail_is_a_value_like_any_other(seen: Callable[[RoutingDecision], Any]) -> None:
    assert seen(deferred()[0]) == seen(RoutingDecision("skills", ("a",), reason="measured", detail={"floor": 0.3}))
