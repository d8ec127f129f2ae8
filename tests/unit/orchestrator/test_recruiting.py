"""Who is not asked although the router selected them: because the best is enough, or because there is no room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from domain.cascade import CascadeRule
from domain.chat import RequestOptions
from domain.errors import InvalidRequest
from domain.routing import PickRule, RoutingDecision
from domain.skills import SkillMatch
from domain.strategy import Strategy
from orchestrator.modes.catalogue import check_strategy
from orchestrator.pipeline import Orchestrator
from orchestrator.recruiting import kept_under
from tests.fakes.directory import CascadingRouter, FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.routing import profile
from tests.fakes.workers import ScriptedWorkers
from tests.unit.orchestrator.test_adjustments import Queues
from tests.unit.orchestrator.test_pipeline import ask

THREE = Strategy("s", pick=PickRule("top_k", 3), aggregator="vote")
SURE = replace(THREE, alone_from_accuracy=0.9)
SHEDS = replace(THREE, shed_from_load=1.0)
BOTH = (SkillMatch("sums", 0.9, 0.5), SkillMatch("units", 0.8, 0.5))


class World:
    """Experts a to e with ten places each, with falling scores; what was measured of them at the query's skills, and how busy they are."""

    def __init__(
        self,
        strategy: Strategy,
        *,
        measured: Mapping[str, Mapping[str, tuple[int, int]]] | None = None,
        skills: tuple[SkillMatch, ...] = (SkillMatch("sums", 0.9, 1.0),),
        busy: Mapping[str, int] | None = None,
        router: FakeRouter | None = None,
    ) -> None:
        self.workers, self.sink = ScriptedWorkers(dict.fromkeys("abcde", "2")), KeptTraces()
        directory = FakeDirectory([card(name, max_in_flight=10) for name in "abcde"], strategies=[strategy])
        profiles = {name: profile(name, counts) for name, counts in (measured or {}).items()}
        directory._snapshot = replace(directory.snapshot(), profiles=profiles)
        router = router or FakeRouter(choose=lambda query: "abcde"[: query.pick.k])
        route = router.route

        async def with_skills(query: Any, snapshot: Any) -> RoutingDecision:
            return replace(await route(query, snapshot), skills=skills)

        router.route = with_skills  # type: ignore[method-assign]
        load = Queues({name: (min(10, calls), max(0, calls - 10)) for name, calls in (busy or {}).items()})
        self.orchestrator = Orchestrator(
            directory=directory, routers={"skills": router}, workers=self.workers, sinks=[self.sink], load=load
        )

    async def asked(self, **options: Any) -> str:
        """Who is asked, by their letters."""
        await self.orchestrator.run(ask("consilium/s", options=RequestOptions(**options)))
        return "".join(self.workers.called())

    @property
    def decision(self) -> RoutingDecision:
        found = self.sink.traces[-1].decision
        assert found is not None
        return found


# --- over-calling -----------------------------------------------------------------------------------------------------


async def test_an_expert_that_is_nearly_always_right_is_asked_alone_and_it_is_said_why() -> None:
    world = World(SURE, measured={"a": {"sums": (200, 198)}})

    assert await world.asked() == "a"
    assert "a is right in 99% of such questions (200 measured), so it is asked alone and 2 calls are saved" in world.decision.reason
    assert world.decision.detail["enough_alone"] == {"asked": 1, "of": 3, "accuracy": 0.9851, "wanted": 0.9}
    assert [expert.expert_id for expert in world.decision.considered if expert.selected] == ["a"]


@pytest.mark.parametrize(
    ("measured", "skills"),
    [
        ({}, BOTH[:1]),
        ({"a": {"sums": (200, 160)}}, BOTH[:1]),
        ({"a": {"sums": (19, 19)}}, BOTH[:1]),
        ({"b": {"sums": (200, 200)}}, BOTH[:1]),
        ({"a": {"sums": (200, 200)}}, BOTH),
        ({"a": {"sums": (200, 200), "units": (5, 5)}}, BOTH),
        ({"a": {"sums": (200, 200)}}, ()),
    ],
    ids=[
        "never measured",
        "often wrong",
        "measured too little",
        "another one",
        "at one skill of two",
        "too little at one",
        "unknown skills",
    ],
)
async def test_whoever_is_not_known_to_be_enough_is_not_asked_alone(measured: Any, skills: Any) -> None:
    world = World(SURE, measured=measured, skills=skills)

    assert await world.asked() == "abc"
    assert "enough_alone" not in world.decision.detail


@pytest.mark.parametrize("options", [{"k": 3}, {"pick": "top_k"}, {"effort": "high"}])
async def test_a_caller_who_says_how_many_gets_so_many(options: dict[str, Any]) -> None:
    world = World(SURE, measured={"a": {"sums": (200, 200)}})

    assert await world.asked(**options) == ("abcde" if "effort" in options else "abc")


async def test_a_mode_of_several_calls_is_not_cut_short() -> None:
    world = World(SURE, measured={"a": {"sums": (200, 200)}})

    assert set(await world.asked(mode="moa", mode_options={"layers": 1})) == {"a", "b", "c"}


async def test_a_strategy_without_the_guard_asks_all_that_it_selected() -> None:
    assert await World(THREE, measured={"a": {"sums": (200, 200)}}).asked() == "abc"


def test_a_guard_that_could_never_do_anything_is_refused_when_it_is_stored() -> None:
    with pytest.raises(InvalidRequest, match="'moa' makes several calls in any case") as refused:
        check_strategy(replace(SURE, mode="moa"))

    assert refused.value.param == "alone_from_accuracy"


# --- load shedding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calls", "asked"), [(0, "abc"), (9, "abc"), (10, "ab"), (14, "ab"), (15, "a"), (300, "a")])
async def test_a_panel_shrinks_step_by_step_as_everybody_gets_busier_down_to_one(calls: int, asked: str) -> None:
    """Ten places: from ten calls on, all are taken, and the rest wait."""
    assert await World(SHEDS, busy=dict.fromkeys("abc", calls)).asked() == asked


async def test_the_trace_says_who_was_left_out_and_how_busy_they_were() -> None:
    world = World(SHEDS, busy={"a": 0, "b": 3, "c": 23})

    assert await world.asked() == "ab"
    assert "under pressure (load of c at 2.3 times the places), so 2 of 3 candidates are asked" in world.decision.reason
    assert world.decision.detail["load_shed"] == {"asked": 2, "of": 3, "from_load": 1.0}


async def test_only_the_busy_ones_are_left_out_and_never_the_best() -> None:
    assert await World(SHEDS, busy={"b": 40}).asked() == "ac"
    assert await World(SHEDS, busy={"a": 40}).asked() == "abc"


async def test_pressure_counts_for_a_caller_who_says_how_many_as_well() -> None:
    """The alternative is to be refused."""
    assert await World(SHEDS, busy=dict.fromkeys("abcde", 10)).asked(k=5) == "abcd"


async def test_a_strategy_without_it_sheds_nothing() -> None:
    assert await World(THREE, busy=dict.fromkeys("abc", 300)).asked() == "abc"


async def test_a_cascade_keeps_its_stages() -> None:
    """They are asked one after the other, as far as is needed."""
    world = World(SHEDS, busy=dict.fromkeys("abc", 300), router=CascadingRouter(CascadeRule(), "a", "b"))
    await world.asked()

    assert "load_shed" not in world.decision.detail


def test_more_load_never_means_more_experts() -> None:
    for num in range(1, 9):
        sizes = [len(kept_under([load / 10] * num, 1.0)) for load in range(31)]

        assert sizes == sorted(sizes, reverse=True)
        assert (sizes[0], sizes[-1]) == (num, 1)
        assert set(sizes) == set(range(1, num + 1))  # one at a time
