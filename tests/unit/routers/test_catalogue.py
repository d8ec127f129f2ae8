"""Routers by name."""

from __future__ import annotations

import pytest

from domain.errors import InvalidRequest
from routers.catalogue import RouterCatalogue
from routers.explicit import ExplicitRouter
from routers.random_router import RandomRouter

CATALOGUE = RouterCatalogue([ExplicitRouter(), RandomRouter()])


def test_a_router_is_found_by_its_name() -> None:
    assert CATALOGUE["random"].name == "random"
    assert sorted(CATALOGUE) == ["explicit", "random"]
    assert len(CATALOGUE) == 2


def test_an_unknown_name_is_refused_with_the_nearest_known_one_also_by_get() -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean 'random'\? Known are explicit, random") as caught:
        CATALOGUE.get("randm")

    assert caught.value.param == "consilium.router"


def test_asking_whether_a_name_is_known_does_not_raise() -> None:
    assert "randm" not in CATALOGUE
    assert "random" in CATALOGUE
