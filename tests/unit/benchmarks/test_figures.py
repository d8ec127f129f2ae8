"""The arithmetic under the overhead table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.figures import Sample, added, quantile, sample_of, turn
from benchmarks.gateways import mock_manifest
from benchmarks.load import Load
from benchmarks.overhead import AUTO, DIRECT, EXPLICIT, FEW, LITELLM, MANY, PORTKEY, Way, targets
from experts_registry.manifest import load_manifest
from zoo import release


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_quantiles_are_numpys(q: float) -> None:
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 7.5]

    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)))


def test_nothing_has_no_quantile() -> None:
    assert math.isnan(quantile([], 0.5))


def test_what_is_added_is_taken_within_each_round() -> None:
    """A round in which the machine was slow for both says as much as any other."""
    way = [Sample(2.0, 0, 0), Sample(12.5, 0, 0), Sample(2.2, 0, 0)]
    direct = [Sample(1.0, 0, 0), Sample(11.0, 0, 0), Sample(1.0, 0, 0)]

    told = added(way, direct, "p50")

    assert (told.median, told.least, told.most) == pytest.approx((1.2, 1.0, 1.5))


def test_a_sample_is_per_request() -> None:
    load = Load(latencies=[1.0, 3.0], num_done=2, seconds=0.5, processor_s=0.004)

    sample = sample_of(load, processor_s=0.01)

    assert (sample.p50, sample.rate, sample.processor_ms, sample.load_ms) == pytest.approx((2.0, 4.0, 5.0, 2.0))


def test_everybody_comes_first_once() -> None:
    assert [turn("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert sorted(turn("abc", 2)) == ["a", "b", "c"]


def way(p50: float, rate: float) -> Way:
    return Way(None, "", "", 0, samples={f"plain {FEW}": [Sample(p50, 0, 0)], f"plain {MANY}": [Sample(0, 0, rate)]})  # type: ignore[arg-type]


def test_targets_are_judged_by_what_is_added() -> None:
    ways = {DIRECT: way(0.1, 9000), EXPLICIT: way(0.6, 3000), AUTO: way(5.0, 200), LITELLM: way(10.1, 190), PORTKEY: way(1.1, 1600)}

    told = list(targets(ways).values())

    assert told == [True, False, True, True, True]  # 0.5 of 1.0; 1.88 times; 15.8 times; 4.9 of 10.0; no failure


def test_a_target_without_its_peer_is_not_told() -> None:
    told = targets({DIRECT: way(0.1, 9000), EXPLICIT: way(0.6, 3000), AUTO: way(5.0, 200), LITELLM: way(10.1, 190)})

    assert list(told.values()) == [None, None, True, True, True]


def test_every_expert_of_the_zoo_is_served_by_the_mock() -> None:
    """Under the ids that were measured, so that `auto` routes by real profiles."""
    cards = load_manifest(mock_manifest("http://127.0.0.1:1/v1")).to_cards()

    zoo = {card.id for card in load_manifest(release.manifest_text()).to_cards()}
    assert {card.id for card in cards} == {*zoo, "mock"}
    assert {card.max_in_flight for card in cards} == {4096}
    assert {card.base_url for card in cards} == {"http://127.0.0.1:1/v1"}
