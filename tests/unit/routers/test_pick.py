"""From scores to selected experts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.routing import PickRule
from routers.pick import check, pick

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_top_k_takes_the_best_and_keeps_the_order_of_equals() -> None:
    assert pick([0.2, 0.9, 0.5, 0.9], PickRule("top_k", 3), seed=0) == (1, 3, 2)


def test_top_k_takes_everybody_when_there_are_fewer() -> None:
    assert pick([0.1, 0.2], PickRule("top_k", 5), seed=0) == (1, 0)


def test_dynamic_takes_one_expert_when_one_stands_out() -> None:
    assert pick([0.05, 0.95, 0.6, 0.05], PickRule("dynamic", 3, 0.5), seed=0) == (1,)


def test_dynamic_takes_several_when_nobody_stands_out() -> None:
    assert pick([0.5, 0.48, 0.47], PickRule("dynamic", 3, 0.5), seed=0) == (0, 1)


def test_dynamic_is_not_swamped_by_a_thousand_weak_experts() -> None:
    assert pick([0.95, *[0.1] * 1000], PickRule("dynamic", 3, 0.5), seed=0) == (0,)


def test_dynamic_reaches_a_threshold_of_one_only_with_every_rival_but_never_more_than_k() -> None:
    assert pick([0.9, 0.8, 0.7, 0.6], PickRule("dynamic", 3, 1.0), seed=0) == (0, 1, 2)


def test_dynamic_takes_the_first_when_all_scores_are_zero() -> None:
    assert pick([0.0, 0.0], PickRule("dynamic", 2), seed=0) == (0,)


def test_a_gate_keeps_all_that_matter_and_drops_stragglers() -> None:
    assert pick([0.9, 0.2, 0.85, 0.7], PickRule.of("gate", 4), seed=0) == (0, 2, 3)
    assert pick([0.9, 0.2, 0.1], PickRule.of("gate", 3), seed=0) == (0,)
    assert pick([0.9, 0.85, 0.8, 0.7], PickRule.of("gate", 2), seed=0) == (0, 1)


def test_a_gate_that_nobody_passes_lets_the_best_in() -> None:
    assert pick([0.5] * 10, PickRule("gate", 10, 0.15), seed=0) == (0,)
    assert pick([0.0, 0.0], PickRule.of("gate", 2), seed=0) == (0,)


def test_each_kind_has_a_threshold_of_its_own() -> None:
    assert [PickRule.of(kind, 3).threshold for kind in ("dynamic", "gate", "top_k")] == [0.5, 0.15, 0.5]
    assert PickRule.of("gate", 3, 0.3).threshold == 0.3


def test_sample_draws_with_replacement_in_proportion_to_the_scores() -> None:
    draws = Counter(place for seed in range(4000) for place in pick([0.6, 0.3, 0.1, 0.0], PickRule("sample", 1), seed=seed))

    assert draws[3] == 0
    assert [round(draws[i] / 4000, 1) for i in range(3)] == [0.6, 0.3, 0.1]


def test_sample_may_draw_a_strong_expert_more_than_once() -> None:
    assert any(len(set(pick([0.9, 0.1], PickRule("sample", 3), seed=seed))) == 1 for seed in range(10))


def test_sample_is_uniform_when_nobody_has_a_positive_score() -> None:
    draws = {place for seed in range(200) for place in pick([0.0, 0.0, 0.0], PickRule("sample", 1), seed=seed)}

    assert draws == {0, 1, 2}


def test_an_unknown_kind_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean 'dynamic'\? Known are top_k, sample, dynamic, gate") as caught:
        check(PickRule("dynamc"))

    assert caught.value.param == "consilium.pick"


@pytest.mark.parametrize("rule", [PickRule("top_k", 0), PickRule("dynamic", 2, 0.0), PickRule("dynamic", 2, 1.5)])
def test_an_impossible_rule_is_refused(rule: PickRule) -> None:
    with pytest.raises(InvalidRequest):
        pick([1.0], rule, seed=0)


@given(SCORES, st.sampled_from(["top_k", "sample", "dynamic", "gate"]), st.integers(1, 5), st.floats(0.05, 1.0), st.integers(0, 99))
def test_every_pick_is_between_one_and_k_valid_places_best_first(
    scores: list[float], kind: str, k: int, threshold: float, seed: int
) -> None:
    rule = PickRule(kind, k, threshold)
    places = pick(scores, rule, seed=seed)

    assert 1 <= len(places) <= k
    assert all(0 <= place < len(scores) for place in places)
    assert [scores[place] for place in places] == sorted((scores[place] for place in places), reverse=True)
    assert places == pick(scores, rule, seed=seed)
    assert kind == "sample" or len(set(places)) == len(places)
