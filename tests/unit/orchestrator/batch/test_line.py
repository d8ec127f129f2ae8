"""A line that nobody can answer is routed again only where somebody may be able to later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from domain.errors import NoEligibleExpert
from domain.experts import HealthState
from domain.routing import RoutingQuery
from domain.strategy import Strategy
from orchestrator.batch.line import Lines
from orchestrator.batch.unhurried import Unhurried
from orchestrator.limits import Limits
from orchestrator.preparation import Preparation
from tests.fakes.directory import FakeDirectory, FakeRouter, card
from tests.unit.orchestrator.test_pipeline import ask


class Line:
    """One line's routing by *choose*."""

    def __init__(self, router: FakeRouter, *resting: str) -> None:
        directory = FakeDirectory([card("a"), card("b", enabled=False)], strategies=[Strategy("auto")])
        directory.health = dict.fromkeys(resting, HealthState.OPEN)
        self.router = router
        routers = {"skills": router, "explicit": FakeRouter(name="explicit")}
        now = Preparation(directory=directory, routers=routers, limits=Limits())
        later = Preparation(directory=Unhurried(directory), routers=routers, limits=Limits())
        self.lines = Lines(now, later, [], keep_text=False, wait_s=1.0)


def like_nothing_known(_query: RoutingQuery) -> Sequence[str]:
    raise NoEligibleExpert("the question is like nothing known")


async def test_a_question_that_is_like_nothing_known_is_routed_once() -> None:
    """Its router may have asked experts of its own. One that is switched off is not there later either."""
    line = Line(FakeRouter(choose=like_nothing_known), "b")
    with pytest.raises(NoEligibleExpert, match="like nothing known"):
        await line.lines.route(ask())

    assert len(line.router.queries) == 1


@pytest.mark.parametrize("model", ["auto", "a"])
async def test_an_expert_that_rests_is_waited_for(model: str) -> None:
    line = Line(FakeRouter("a"), "a")

    assert (await line.lines.route(ask(model))).selected == ("a",)
