"""Experts on servers that come and go, as the service puts it all together; the servers are stand-ins."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from domain.deadline import Deadline
from domain.errors import Conflict, ExpertTimeout, ExpertUnavailable, InvalidRequest, NotFound
from domain.experts import Backend, ExpertCard, ServingOptions
from tests.fakes.fleets import adapter_on, call_to, fleet_in, managed, pool_on
from tests.fakes.vllm import processes
from tests.integration.vllm.conftest import until
from workers.managed.fleet import Fleet
from workers.managed.views import ServerView
from workers.pool import WorkerPool

OpenFleet = Callable[..., Awaitable[tuple[Fleet, WorkerPool]]]


@pytest.fixture
async def opened(root: Path) -> AsyncIterator[OpenFleet]:
    """A fleet of the given cards and a pool on it; closed at the end, and nothing may run then."""
    made: list[tuple[Fleet, WorkerPool]] = []

    async def opened(*cards: ExpertCard, **how: Any) -> tuple[Fleet, WorkerPool]:
        fleet = fleet_in(root, **how)
        made.append((fleet, pool_on(fleet, root)))
        await fleet.update(cards)
        return made[-1]

    yield opened
    try:
        for fleet, pool in made:
            await pool.close()
            await fleet.close()
        assert not processes(root), "processes are left"
    finally:
        for identity in processes(root):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(identity.pid).kill()


def server(fleet: Fleet, server_id: str) -> ServerView:
    return next(view for view in fleet.view().servers if view.id == server_id)


def up(fleet: Fleet) -> list[str]:
    return [view.id for view in fleet.view().servers if view.status.state.value == "ready"]


async def answer(pool: WorkerPool, card: ExpertCard, text: str = "hello", **how: Any) -> str:
    return (await pool.complete(call_to(card, text, **how))).text


async def test_a_call_brings_its_server_up_and_the_next_makes_room_for_its_own(opened: OpenFleet) -> None:
    a, b = managed("a"), managed("b")
    fleet, pool = await opened(a, b)
    assert up(fleet) == [], "nobody needed one yet"

    said = [await answer(pool, card) for card in (a, a, b)]

    assert [text.split()[0] for text in said] == ["a", "a", "b"]
    assert said[0] == said[1]
    assert up(fleet) == ["b"]
    assert (fleet.num_loads, fleet.num_resident) == (2, 1)
    assert fleet.waited_s > 0


async def test_what_has_to_be_loaded_for_an_expert_is_told_until_it_is_loaded(opened: OpenFleet, tmp_path: Path) -> None:
    """Experts on one server need the same memory, once."""
    base = managed("a")
    adapter, other = adapter_on(base, "adapter", tmp_path), managed("b")
    fleet, pool = await opened(base, adapter, other)
    before = fleet.to_load()
    await pool.complete(call_to(adapter))

    assert {expert_id: round(mb) for expert_id, (_, mb) in before.items()} == {"a": 80, "adapter": 80, "b": 80}
    assert before["a"] == before["adapter"] != before["b"]
    assert set(fleet.to_load()) == {"b"}


async def test_adapters_are_loaded_on_their_base_s_server_when_they_are_called(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base")
    chess, go = adapter_on(base, "chess", tmp_path), adapter_on(base, "go", tmp_path, rank=32)
    fleet, pool = await opened(base, chess, go)

    said = await asyncio.gather(*(answer(pool, card) for card in (chess, chess, go, base)))

    assert [text.split()[0] for text in said] == ["chess", "chess", "go", "base"]
    assert len({text.split()[-1] for text in said}) == 1, "one process"
    assert fleet.num_loads == 1
    assert server(fleet, "base").status.adapters == ("chess", "go")
    assert server(fleet, "base").expert_ids == ("base", "chess", "go")


async def test_a_stream_tells_how_the_wait_goes_under_the_expert_s_own_name(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("secret-base")
    card = adapter_on(base, "chess", tmp_path)
    _, pool = await opened(base, card)
    told: list[str] = []

    text = ""
    async for chunk in pool.stream(call_to(card, on_progress=told.append)):
        text += "".join(choice.delta.get("content") or "" for choice in chunk.choices)

    assert text.startswith("chess")
    assert told[0] == "chess: loading, takes about 1 s"
    assert len(told) > 1, "again and again while it loads"
    assert not any("secret-base" in line for line in told)
    told.clear()
    async for _ in pool.stream(call_to(card, on_progress=told.append)):
        assert not told, "there is nothing to wait for any more"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_whose_server_dies_is_made_again_on_a_new_one(opened: OpenFleet, tmp_path: Path, streamed: bool) -> None:
    base = managed("base")
    card = adapter_on(base, "chess", tmp_path)
    fleet, pool = await opened(base, card)
    before = await answer(pool, card)
    call = call_to(card, f"die {tmp_path / 'died'}")

    if streamed:
        deltas = [choice.delta async for chunk in pool.stream(call) for choice in chunk.choices]
        after = " ".join(str(delta["content"]) for delta in deltas if delta.get("content"))
    else:
        candidate = await pool.complete(call)
        after = candidate.text
        assert candidate.num_retries == 1

    assert (tmp_path / "died").exists()
    assert after.startswith("chess on ")
    assert after != before, "another process"
    assert fleet.num_loads == 2


async def test_a_call_to_a_server_that_died_meanwhile_finds_a_new_one(opened: OpenFleet) -> None:
    card = managed("a")
    fleet, pool = await opened(card)
    before = await answer(pool, card)
    pid = server(fleet, "a").status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert await answer(pool, card) != before


async def test_the_card_s_time_is_for_running_not_for_the_load(opened: OpenFleet) -> None:
    """A stand-in needs some hundred milliseconds to come up, and few to answer."""
    slow = managed("a", timeout_s=0.2, serving=ServingOptions(extra_arguments=("--slow-start", "0.5")))
    _, pool = await opened(slow)

    assert (await answer(pool, slow)).startswith("a on")


async def test_a_call_waits_for_its_server_until_the_request_s_deadline(opened: OpenFleet, tmp_path: Path) -> None:
    a, b = managed("a"), managed("b")
    _, pool = await opened(a, b)
    await answer(pool, a)
    holder = asyncio.create_task(answer(pool, a, f"wait {tmp_path / 'go'}"))
    await until(lambda: pool.in_flight("a"))

    with pytest.raises(ExpertTimeout, match="deadline came while it waited") as caught:
        await answer(pool, b, timeout_s=0.3)
    (tmp_path / "go").touch()

    assert not caught.value.expert_at_fault
    assert (await holder).startswith("a on")


async def test_calls_inside_a_hold_are_let_in_although_somebody_older_waits_for_the_memory(opened: OpenFleet) -> None:
    a, b = managed("a"), managed("b")
    fleet, pool = await opened(a, b)

    async with fleet.hold("a", Deadline.after(60)):
        other = asyncio.create_task(answer(pool, b))
        await until(lambda: server(fleet, "b").picture.num_waiting)
        async with asyncio.TaskGroup() as group:
            inside = [group.create_task(answer(pool, a, timeout_s=20)) for _ in range(3)]
        assert not other.done()

    assert {task.result().split()[0] for task in inside} == {"a"}
    assert (await other).startswith("b on")


async def test_what_cannot_be_placed_fails_its_own_calls_and_says_why(opened: OpenFleet, tmp_path: Path) -> None:
    good, wrong = managed("good"), managed("wrong", serving=ServingOptions(extra_arguments=("--port", "1")))
    lost = ExpertCard("lost", Backend.VLLM, str(tmp_path / "nowhere"), adapter_of=good.model)
    fleet, pool = await opened(good, wrong, lost)

    for card, says in ((wrong, "cannot be passed on"), (lost, "no LoRA adapter's configuration")):
        with pytest.raises(ExpertUnavailable, match=says):
            await answer(pool, card)
    assert (await answer(pool, good)).startswith("good on")
    assert sorted(fleet.view().obstacles) == ["lost", "wrong"]


async def test_an_adapter_that_its_server_refuses_fails_alone(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base")
    card = adapter_on(base, "chess", tmp_path)
    _, pool = await opened(base, card)
    (Path(card.model) / "adapter_config.json").write_text(json.dumps({"r": 64}))  # after the server was told its ranks

    with pytest.raises(ExpertUnavailable, match="its rank is 64"):
        await answer(pool, card)
    assert (await answer(pool, base)).startswith("base on")


def adapters_at(fleet: Fleet, server_id: str) -> dict[str, str]:
    """What the server itself says that it serves: name to folder."""
    url = server(fleet, server_id).status.base_url
    models = httpx.get(f"{url}/models", timeout=30, trust_env=False).json()["data"]
    return {model["id"]: model["root"] for model in models if model["parent"]}


async def test_an_adapter_that_changed_while_its_server_slept_is_loaded_anew(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base", serving=ServingOptions(gpus=("0",), asleep_mb=5.0))
    v1, v2 = (replace(adapter_on(base, "chess", tmp_path / name), serving=base.serving) for name in ("v1", "v2"))
    fleet, pool = await opened(base, v1)
    await answer(pool, v1)
    await fleet.operations.sleep("base", Deadline.after(30))

    await fleet.update([base, v2])
    await asyncio.gather(*(answer(pool, v2) for _ in range(3)))

    assert adapters_at(fleet, "base") == {"chess": v2.model}
    assert server(fleet, "base").status.adapters == ("chess",)
    assert fleet.num_loads == 1, "woken"


async def test_an_adapter_that_changed_while_no_service_ran_is_loaded_anew(opened: OpenFleet, tmp_path: Path) -> None:
    """The second service takes the server over, with what it has."""
    base = managed("base")
    v1, v2 = (adapter_on(base, "chess", tmp_path / name) for name in ("v1", "v2"))
    first, pool = await opened(base, v1)
    await answer(pool, v1)
    assert first._supervisor._ownership is not None
    first._supervisor._ownership.release()

    second, other_pool = await opened(base, v2)
    await answer(other_pool, v2)

    assert server(second, "base").status.is_adopted
    assert adapters_at(second, "base") == {"chess": v2.model}


async def test_a_call_fails_whose_changed_adapter_cannot_replace_the_old_one(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base", serving=ServingOptions(extra_arguments=("--keeps-adapters",)))
    v1, v2 = (adapter_on(base, "chess", tmp_path / name) for name in ("v1", "v2"))
    fleet, pool = await opened(base, v1)
    await answer(pool, v1)
    await fleet.update([base, v2])

    with pytest.raises(ExpertUnavailable, match=r"'chess' has changed, and its server does not let the old one go: .*it is kept"):
        await answer(pool, v2)
    assert adapters_at(fleet, "base") == {"chess": v1.model}


async def test_calls_to_one_adapter_from_two_folders_get_what_they_ask_for(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base")
    v1, v2 = (adapter_on(base, "chess", tmp_path / name) for name in ("v1", "v2"))
    fleet, _ = await opened(base, v1)

    async with fleet.hold("base", Deadline.after(60)):
        calls = [fleet._adapters.loaded("base", "chess", card.model, Deadline.after(60)) for card in (v1, v2, v2)]
        await asyncio.gather(*calls)

        assert adapters_at(fleet, "base") == {"chess": v2.model}


async def test_a_card_that_is_news_waits_for_its_place(opened: OpenFleet) -> None:
    a = managed("a")
    fleet, pool = await opened(a)
    task = asyncio.create_task(answer(pool, managed("b")))
    await asyncio.sleep(0)
    await fleet.update([a, managed("b")])

    assert (await task).startswith("b on")


async def test_a_changed_launch_restarts_the_server_when_it_is_idle(opened: OpenFleet, tmp_path: Path) -> None:
    before = managed("a")
    fleet, pool = await opened(before)
    await answer(pool, before)
    running = asyncio.create_task(answer(pool, before, f"wait {tmp_path / 'go'}"))
    await until(lambda: pool.in_flight("a"))

    after = replace(before, context_length=64, version=2)
    await fleet.update([after])
    assert server(fleet, "a").status.is_outdated
    (tmp_path / "go").touch()
    await running
    await until(lambda: not server(fleet, "a").status.is_outdated)

    assert (await answer(pool, after)).startswith("a on")
    assert fleet.num_loads == 2


async def test_a_removed_expert_s_server_is_stopped_and_forgotten_when_it_is_idle(opened: OpenFleet, root: Path) -> None:
    card = managed("a")
    fleet, pool = await opened(card)
    await answer(pool, card)

    await fleet.update([])
    await until(lambda: not fleet.view().servers)

    assert not processes(root)
    with pytest.raises(NotFound, match="no managed server 'a'"):
        await fleet.operations.start("a", Deadline.after(1))


async def test_a_server_moves_to_other_gpus_by_being_stopped_there(opened: OpenFleet) -> None:
    card = managed("a")
    fleet, pool = await opened(card)
    await answer(pool, card)

    moved = replace(card, serving=ServingOptions(gpus=("0",)), version=2)
    await fleet.update([moved])
    await until(lambda: [view.pool for view in fleet.view().servers] == ["gpu 0"])

    assert (await answer(pool, moved)).startswith("a on")


async def test_a_pinned_server_is_loaded_at_once_and_never_makes_room(opened: OpenFleet) -> None:
    pinned = managed("a", serving=ServingOptions(pinned=True))
    fleet, pool = await opened(pinned, managed("b"))
    await until(lambda: up(fleet) == ["a"])

    with pytest.raises(ExpertUnavailable, match="unpin a server"):
        await answer(pool, managed("b"))
    with pytest.raises(Conflict, match="pinned"):
        await fleet.operations.stop("a", Deadline.after(5))
    await fleet.update([replace(pinned, serving=ServingOptions(), version=2), managed("b")])

    assert (await answer(pool, managed("b"))).startswith("b on")


async def test_a_pinned_server_that_died_is_loaded_again_unasked(opened: OpenFleet) -> None:
    fleet, _ = await opened(managed("a", serving=ServingOptions(pinned=True)))
    await until(lambda: up(fleet) == ["a"])
    pid = server(fleet, "a").status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    await until(lambda: up(fleet) == ["a"] and server(fleet, "a").status.pid != pid)


async def test_servers_are_taken_over_from_a_service_that_was_killed(root: Path, opened: OpenFleet) -> None:
    """Two fleets of one process stand for two services: the first is left as a kill leaves it."""
    card = managed("a")
    first, pool = await opened(card)
    before = await answer(pool, card)
    supervisor = first._supervisor
    assert supervisor._ownership is not None
    supervisor._ownership.release()

    second, other_pool = await opened(card)

    assert server(second, "a").status.is_adopted
    assert await answer(other_pool, card) == before
    assert second.num_loads == 0


async def test_a_folder_that_another_service_manages_fails_the_experts_and_is_taken_when_it_is_free(opened: OpenFleet) -> None:
    card = managed("a")
    first, _ = await opened(card)
    second, pool = await opened(card)

    with pytest.raises(ExpertUnavailable, match="another process manages"):
        await answer(pool, card)
    assert "another process" in str(second.view().trouble)
    await first.close()
    await until(lambda: second.view().trouble is None)

    assert (await answer(pool, card)).startswith("a on")


async def test_what_was_measured_is_known_after_a_restart(opened: OpenFleet, root: Path) -> None:
    card = managed("a", memory_mb=None, serving=ServingOptions(load_s=500.0))
    first, pool = await opened(card, memory_mb=10_000.0)
    await answer(pool, card)
    first.measured("a", call_s=0.25, aggregation=False)
    await pool.close()
    await first.close()

    second, _ = await opened(card, memory_mb=10_000.0)

    assert 0 < server(second, "a").picture.load_s < 100
    assert 1024 < server(second, "a").picture.memory_mb < 2000, "a small Python, and 1 GB for keys and values"
    assert second.call_times["a"].call_s == 0.25


async def test_operators_start_stop_and_read_servers_by_their_experts_too(opened: OpenFleet, tmp_path: Path) -> None:
    base = managed("base")
    fleet, _ = await opened(base, adapter_on(base, "chess", tmp_path))

    assert await fleet.operations.start("chess", Deadline.after(60)) == "base"
    assert up(fleet) == ["base"]
    assert "serving /models/base" in await fleet.operations.logs("chess", 10)
    with pytest.raises(InvalidRequest, match="cannot sleep"):
        await fleet.operations.sleep("base", Deadline.after(5))
    assert await fleet.operations.stop("base", Deadline.after(60)) == "base"
    assert up(fleet) == []
    for change in (fleet.operations.sleep, fleet.operations.wake):
        with pytest.raises(Conflict, match="is gone"):
            await change("base", Deadline.after(5))
    with pytest.raises(NotFound, match="did you mean 'base'"):
        await fleet.operations.stop("bas", Deadline.after(5))
    with pytest.raises(InvalidRequest, match="from 1 to"):
        await fleet.operations.logs("base", 0)


async def test_a_server_on_gpus_sleeps_and_wakes(opened: OpenFleet) -> None:
    card = managed("a", serving=ServingOptions(gpus=("0",), asleep_mb=5.0))
    fleet, pool = await opened(card)
    await answer(pool, card)

    await fleet.operations.sleep("a", Deadline.after(30))
    assert server(fleet, "a").status.state.value == "asleep"
    await fleet.operations.wake("a", Deadline.after(30))

    assert up(fleet) == ["a"]
    assert fleet.num_loads == 1


async def test_embedded_experts_are_served_on_vllm_when_that_is_chosen(opened: OpenFleet, root: Path) -> None:
    for name in ("base", "chess"):
        (root / name).mkdir(parents=True)
    (root / "base" / "config.json").write_text("{}")
    (root / "chess" / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": "base"}))
    cards = [ExpertCard(name, Backend.EMBEDDED, name, memory_mb=8) for name in ("base", "chess")]
    fleet, pool = await opened(*cards, serves_embedded=True, memory_mb=10_000.0)

    said = [await answer(pool, card) for card in cards]

    assert [text.split()[0] for text in said] == ["base", "chess"]
    assert server(fleet, "base").picture.memory_mb == 3600, "what a card says of a model in process is nothing to a server"


async def test_without_managed_experts_nothing_is_made(opened: OpenFleet, root: Path) -> None:
    fleet, _ = await opened(ExpertCard("a", Backend.EMBEDDED, "a"))

    assert await asyncio.to_thread(root.exists) is False
    assert fleet.view().trouble is None
    assert fleet.view().servers == ()


async def test_closing_turns_away_who_waits_and_stops_a_server_that_loads(opened: OpenFleet, root: Path) -> None:
    card = managed("a", serving=ServingOptions(extra_arguments=("--hang-at-start",)))
    fleet, pool = await opened(card)
    waiting = asyncio.create_task(answer(pool, card))
    await until(lambda: processes(root))

    await fleet.close()

    with pytest.raises(ExpertUnavailable):
        await waiting
    assert not processes(root)
