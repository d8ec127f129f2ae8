"""The managed servers as a batch's plan sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from api.batch_host import BatchFleet
from domain.deadline import Deadline
from domain.experts import Backend, ExpertCard, ServingOptions
from orchestrator.batch.host import BatchExpert, Device, Server
from orchestrator.batch.ports import Fleet as BatchPort
from tests.fakes.fleets import adapter_on, fleet_in, managed
from workers.managed.limits import DEFAULT_CALL_S


async def test_servers_devices_and_experts_are_told_as_they_are_now(root: Path, tmp_path: Path) -> None:
    base, other = managed("base"), managed("other", serving=ServingOptions(gpus=("0",), load_s=7.0))
    cards = [base, adapter_on(base, "chess", tmp_path), other, replace(base, id="wrong", serving=ServingOptions(gpus=("0", "1")))]
    fleet = fleet_in(root)
    batches: BatchPort = BatchFleet(fleet)
    try:
        await fleet.update([*cards, ExpertCard("here", Backend.EMBEDDED, "here")])
        batches.measured("chess", call_s=0.5, aggregation=False)
        batches.measured("chess", call_s=3.0, aggregation=True)
        before = batches.host(["chess", "here", "wrong"])
        async with batches.hold("base", Deadline.after(60)):
            during = batches.host(["chess"])
            batches.release("base")
        batches.release("base")
        batches.expect(["other", "base"])
        async with batches.hold("base", Deadline.after(60)):
            num_loads = fleet.num_loads
    finally:
        await fleet.close()

    assert before.experts == {
        "chess": BatchExpert("chess", 0.5, "base", 3.0),
        "here": BatchExpert("here", DEFAULT_CALL_S),
        "wrong": BatchExpert("wrong", DEFAULT_CALL_S),
    }
    assert before.servers["base"] == Server("base", 80, 1.0, frozenset({"processors"}))
    assert (before.servers["other"].load_s, before.servers["other"].devices) == (7.0, {"gpu 0"})
    assert before.devices == (Device("gpu 0", 100), Device("processors", 100))
    assert during.devices == (Device("gpu 0", 100), Device("processors", 100, resident=("base",)))
    assert during.servers["base"].load_s != 1.0, "measured"
    assert num_loads == 2, "released only when nobody used it any more"


async def test_a_process_that_does_not_manage_the_servers_says_so(root: Path) -> None:
    first, second = fleet_in(root), fleet_in(root)
    try:
        for fleet in (first, second):
            await fleet.update([managed("a")])
        assert BatchFleet(first).trouble is None
        assert "another process manages" in str(BatchFleet(second).trouble)
        await second.update([])
        assert BatchFleet(second).trouble is None, "nothing is left that it could not do"
    finally:
        await second.close()
        await first.close()


async def test_what_is_pinned_is_told(root: Path) -> None:
    fleet = fleet_in(root)
    try:
        await fleet.update([managed("a", serving=ServingOptions(pinned=True))])
        assert BatchFleet(fleet).host(["a"]).pinned == {"a"}
    finally:
        await fleet.close()
