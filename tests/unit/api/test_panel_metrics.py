"""What the metrics say of panels: whether they were for something, and who was not asked."""

from __future__ import annotations

from dataclasses import replace

from api.metrics import Metrics
from domain.routing import RoutingDecision
from domain.trace import Trace

PANEL = Trace("r", "auto", "s", 0.0, "ok", RoutingDecision("skills", ("a",)))


async def shown(*traces: Trace) -> set[str]:
    metrics = Metrics()
    for trace in traces:
        metrics.emit(trace)
    lines = (await metrics.render()).decode().splitlines()
    return {line for line in lines if line.startswith(("consilium_panels", "consilium_candidates"))}


async def test_panels_are_counted_by_whether_they_changed_the_answer() -> None:
    for_nothing = replace(PANEL, panel_changed_answer=False)

    assert await shown(PANEL, for_nothing, for_nothing, replace(PANEL, panel_changed_answer=True)) == {
        'consilium_panels_total{changed="no"} 2.0',
        'consilium_panels_total{changed="yes"} 1.0',
    }


async def test_experts_that_were_not_asked_are_counted_by_the_reason() -> None:
    enough = RoutingDecision("skills", ("a",), detail={"enough_alone": {"asked": 1, "of": 3, "accuracy": 0.95, "wanted": 0.9}})
    full = RoutingDecision("skills", ("a", "b"), detail={"load_shed": {"asked": 2, "of": 3, "from_load": 1.0}})

    assert await shown(replace(PANEL, decision=enough), replace(PANEL, decision=full)) == {
        'consilium_candidates_not_asked_total{why="enough_alone"} 2.0',
        'consilium_candidates_not_asked_total{why="load_shed"} 1.0',
    }
