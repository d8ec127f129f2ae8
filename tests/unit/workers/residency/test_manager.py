"""Requests get their servers: who waits for what, in which order, and what goes for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from domain.deadline import Deadline
from domain.errors import (
    Conflict,
    ExpertAuthFailed,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    InvalidRequest,
    NotFound,
)
from tests.fakes.server_host import FakeHost, Guest, house, turn
from workers.residency.servers import Action, ServerSpec
from workers.residency.state import Progress, Stage


async def test_the_first_request_loads_and_the_next_finds_it_up() -> None:
    home = house()
    await home.visit("aa")

    assert home.host.calls == ["load a"]
    assert (home.residency.counts.num_uses, home.residency.counts.num_hits, home.residency.counts.num_loads) == (2, 1, 1)


async def test_requests_for_one_server_wait_for_one_load() -> None:
    home = house()
    gate = home.host.block("load a")
    guests = [home.guest("a") for _ in range(5)]
    await turn()
    inside = [guest.inside.is_set() for guest in guests]
    gate.set()
    await asyncio.gather(*(guest.inside.wait() for guest in guests))

    assert inside == [False] * 5
    assert home.host.calls == ["load a"]
    for guest in guests:
        await guest.go()


async def test_servers_that_fit_are_loaded_at_once() -> None:
    home = house()
    gates = [home.host.block("load a"), home.host.block("load b")]
    guests = [home.guest("a"), home.guest("b")]
    await turn()

    assert home.host.calls == ["load a", "load b"]
    for gate in gates:
        gate.set()
    for guest in guests:
        await guest.go()


async def test_the_server_unused_longest_goes() -> None:
    home = house()
    await home.visit("abac")

    assert home.host.calls == ["load a", "load b", "stop b", "load c"]


async def test_a_load_waits_until_the_memory_is_really_free() -> None:
    home = house()
    stopping = home.host.block("stop a")
    await home.visit("ab")
    guest = home.guest("c")
    await turn()
    during = list(home.host.calls)
    stopping.set()
    await guest.inside.wait()

    assert during == ["load a", "load b", "stop a"]
    assert home.host.calls == [*during, "load c"]
    await guest.go()


async def test_a_server_in_use_stays_until_its_requests_are_done() -> None:
    home = house()
    first, second = await home.inside("a"), await home.inside("b")
    waiting = home.guest("c")
    await turn()
    before = list(home.host.calls)
    await first.go()
    await waiting.inside.wait()

    assert before == ["load a", "load b"]
    assert home.host.calls == ["load a", "load b", "stop a", "load c"]
    for guest in (second, waiting):
        await guest.go()


async def test_a_stream_of_requests_does_not_starve_one_that_waits() -> None:
    """New requests for the busy server queue behind, although it is never idle in between."""
    home = house(4.0)
    stream = [await home.inside("a")]
    waiting = home.guest("b")
    await turn()
    for _ in range(5):  # each begins before the one in front of it ends
        stream.append(home.guest("a"))
        await turn()
        await stream[-2].go() if stream[-2].inside.is_set() else None
    await waiting.inside.wait()

    assert [guest.inside.is_set() for guest in stream] == [True, *[False] * 5]
    assert home.host.calls == ["load a", "stop a", "load b"]
    await waiting.go()
    for guest in stream[1:]:
        await guest.go()


async def test_a_server_that_came_up_serves_its_queue_before_it_goes() -> None:
    """Also those that came after the first request for the other server: a load serves all that gathered for it."""
    home = house(4.0)
    first = await home.inside("a")
    guests = [home.guest(name) for name in "babab"]
    await turn()
    await first.go()
    await asyncio.gather(*(guest.inside.wait() for guest in guests if guest.server_id == "b"))
    late = home.guest("b")
    await turn()

    assert not late.inside.is_set()  # the others' turn is next
    assert home.host.calls == ["load a", "stop a", "load b"]
    for guest in (*guests, late):
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in (*guests, late)))
    assert home.host.calls == ["load a", "stop a", "load b", "stop b", "load a", "stop a", "load b"]


async def test_two_streams_share_one_place_in_turns() -> None:
    """Each change serves a whole queue: many requests, few loads, and neither stream is left behind."""
    home = house(4.0)
    done = {"a": 0, "b": 0}

    async def client(server_id: str) -> None:
        for _ in range(20):
            async with home.residency.hold(server_id, Deadline.after(60)):
                home.host.held[server_id] += 1
                await asyncio.sleep(0)
                home.host.held[server_id] -= 1
            done[server_id] += 1

    await asyncio.gather(*(client(name) for name in "ab" * 8))

    assert done == {"a": 160, "b": 160}
    assert home.residency.counts.num_loads <= 42  # 20 rounds of each client


async def test_the_queue_is_first_come_first_served() -> None:
    home = house(4.0)
    first = await home.inside("a")
    guests = []
    for name in "cbd":
        guests.append(home.guest(name))
        await turn()
    await first.go()
    for guest in guests:
        await guest.inside.wait()
        await guest.go()

    assert [call for call in home.host.calls if call.startswith("load")] == ["load a", "load c", "load b", "load d"]


async def test_a_deadline_ends_the_wait_and_says_for_what() -> None:
    home = house()
    home.host.block("load a")

    with pytest.raises(ExpertTimeout, match="waited for server a: loading, takes about 10 s") as caught:
        await home.guest("a", deadline_s=0.01).task
    assert not caught.value.expert_at_fault
    with pytest.raises(ExpertTimeout, match="no time was left"):
        await home.guest("a", deadline_s=0).task
    await home.residency.close()


async def test_an_impatient_client_finds_the_server_up_when_it_comes_again() -> None:
    """Nobody needs the memory, so the load goes on without it."""
    home = house()
    gate = home.host.block("load a")
    with pytest.raises(ExpertTimeout):
        await home.guest("a", deadline_s=0.01).task
    gate.set()
    await turn()
    await home.visit("a")

    assert home.host.calls == ["load a"]
    assert home.residency.counts.num_hits == 1


async def abandoned(after_s: float) -> tuple[Any, Guest]:
    """A host of one place where the load of a was abandoned after *after_s* of about 10 s, and b is wanted."""
    home = house(4.0)
    home.host.block("load a")
    gone = home.guest("a")
    await turn()
    gone.task.cancel()
    await turn()
    home.host.clock.now += after_s
    return home, home.guest("b")


async def test_an_abandoned_load_is_given_up_when_somebody_needs_the_memory() -> None:
    home, guest = await abandoned(4.0)
    await guest.inside.wait()

    assert home.host.cancelled == ["load a"]
    assert home.host.calls == ["load a", "load b"]
    assert home.residency.counts.num_given_up == 1
    await guest.go()


async def test_a_load_that_is_ready_as_it_is_given_up_is_evicted_like_any_other() -> None:
    class Deaf(FakeHost):
        async def load(self, server_id: str) -> None:
            load = asyncio.create_task(super().load(server_id))
            with suppress(asyncio.CancelledError):
                await asyncio.shield(load)
            await load

    home = house(4.0, host=Deaf)
    gate = home.host.block("load a")
    home.residency.prefetch("a")
    await turn()
    guest = home.guest("b")
    await turn()
    gate.set()
    await guest.go()

    assert home.host.calls == ["load a", "stop a", "load b"]


async def test_an_abandoned_load_that_is_nearly_done_is_finished_first() -> None:
    home, guest = await abandoned(6.0)
    await turn()
    during = list(home.host.calls)
    home.host.block("load a").set()
    await guest.inside.wait()

    assert home.host.cancelled == []
    assert during == ["load a"]
    assert home.host.calls == ["load a", "stop a", "load b"]
    await guest.go()


async def test_a_load_that_somebody_still_waits_for_is_not_given_up() -> None:
    home = house(4.0)
    gate = home.host.block("load a")
    gone, stays = home.guest("a"), home.guest("a")
    await turn()
    gone.task.cancel()
    other = home.guest("b")
    await turn()
    gate.set()
    await stays.inside.wait()

    assert home.host.cancelled == []
    await stays.go()
    await other.go()


async def test_who_comes_back_to_a_load_that_is_being_given_up_gets_a_new_one() -> None:
    home, guest = await abandoned(1.0)
    await turn(3)
    again = home.guest("a")
    await guest.go()
    home.host.block("load a").set()
    await again.go()

    assert home.host.calls == ["load a", "load b", "stop b", "load a"]


async def test_a_request_that_is_cancelled_leaves_the_queue() -> None:
    home = house(4.0)
    first, second, third = await home.inside("a"), home.guest("b"), home.guest("c")
    await turn()
    second.task.cancel()
    await turn()
    await first.go()
    await third.go()

    assert home.host.calls == ["load a", "stop a", "load c"]


async def test_a_request_that_is_cancelled_as_it_gets_in_holds_nothing() -> None:
    home = house(4.0)
    gate = home.host.block("load a")
    guest = home.guest("a")
    await turn()
    gate.set()
    while home.state("a") != "awake":
        await asyncio.sleep(0)
    guest.task.cancel()  # it was let in, and has not run yet
    await turn()

    assert not guest.inside.is_set()
    assert home.residency.snapshot().servers[0].num_holders == 0
    await home.visit("b")


async def test_a_request_that_leaves_opens_what_was_closed_for_it() -> None:
    home = house(4.0)
    first, waiting = await home.inside("a"), home.guest("b")
    await turn()
    behind = home.guest("a")
    await turn()
    before = behind.inside.is_set()
    waiting.task.cancel()
    await behind.inside.wait()

    assert not before
    assert home.host.calls == ["load a"]
    for guest in (first, behind):
        await guest.go()


async def test_a_failed_load_reaches_all_who_wait_with_its_cause() -> None:
    home = house()
    gate = home.host.block("load a")
    cause = ExpertAuthFailed("the gated model wants a token", status=401)
    home.host.fail("load a", cause)
    guests = [home.guest("a") for _ in range(3)]
    await turn()
    gate.set()
    errors = await asyncio.gather(*(guest.task for guest in guests), return_exceptions=True)

    assert [type(error) for error in errors] == [ExpertAuthFailed] * 3
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, ExpertError)
        assert str(error) == "server 'a' could not be loaded: the gated model wants a token"
        assert (error.__cause__, error.status) == (cause, 401)
    assert home.state("a") == "gone"


async def test_a_failed_load_is_not_tried_again_by_itself_but_by_the_next_request() -> None:
    """The error says that it is not worth a retry: that would take a whole load each time."""
    home = house()
    home.host.fail("load a", ExpertUnreachable("out of memory"))

    with pytest.raises(ExpertUnreachable) as caught:
        await home.guest("a").task
    assert not caught.value.retryable
    assert home.host.calls == ["load a"]
    await home.visit("a")
    assert home.residency.counts.num_failed == 1


async def test_a_kind_of_the_host_s_own_is_told_as_its_kind_in_the_error_tree() -> None:
    class NoSuchFolder(ExpertUnreachable):
        def __init__(self, folder: str) -> None:
            super().__init__(f"there is no folder {folder}")

    home = house()
    cause = NoSuchFolder("/models/a")
    home.host.fail("load a", cause)

    with pytest.raises(ExpertUnreachable, match="there is no folder /models/a") as caught:
        await home.guest("a").task
    assert caught.value.__cause__ is cause


async def test_a_bug_of_the_host_reaches_the_requests_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    home = house()
    home.host.fail("load a", ZeroDivisionError("oops"))

    with pytest.raises(ExpertError, match="could not be loaded: oops") as caught:
        await home.guest("a").task
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text


async def test_a_load_that_hangs_ends() -> None:
    home = house(load_timeout_s=0.01)
    home.host.block("load a")

    with pytest.raises(ExpertTimeout, match=r"did not become ready within 0\.01 s"):
        await home.guest("a").task
    assert home.host.cancelled == ["load a"]


async def test_the_queue_is_bounded() -> None:
    home = house(max_waiting=2)
    gate = home.host.block("load a")
    guests = [home.guest("a"), home.guest("a")]
    await turn()

    with pytest.raises(ExpertOverloaded, match="2 requests wait") as caught:
        await home.guest("b").task
    assert caught.value.retry_after_s == 10.0
    gate.set()
    for guest in guests:
        await guest.go()


async def test_a_server_that_can_never_fit_is_refused_at_once() -> None:
    home = house(sizes={"huge": 9.0, "agg": 4.0, "b": 6.0})
    home.residency.pin("agg")
    await home.visit(["agg"])

    with pytest.raises(ExpertUnavailable, match="server 'huge' needs 9 MB and the host has 8 MB; pinned servers hold 4 MB"):
        await home.guest("huge").task
    with pytest.raises(ExpertUnavailable, match="can never fit"):
        await home.guest("b").task
    home.residency.unpin("agg")
    await home.visit(["b"])
    assert home.host.calls == ["load agg", "stop agg", "load b"]


async def test_a_server_that_is_not_declared_is_unavailable() -> None:
    with pytest.raises(ExpertUnavailable, match="not declared"):
        await house().guest("x").task


async def test_a_pinned_server_stays() -> None:
    home = house()
    await home.visit("a")
    home.residency.pin("a")
    await home.visit("bcd")

    assert home.host.calls == ["load a", "load b", "stop b", "load c", "stop c", "load d"]


async def test_progress_is_told_when_it_changes() -> None:
    home = house(4.0)
    stopping, loading = home.host.block("stop a"), home.host.block("load c")
    told: list[Progress] = []
    first, before, guest = await home.inside("a"), home.guest("b"), home.guest("c", on_progress=told.append)
    await turn()
    before.task.cancel()
    await turn()
    await first.go()
    await turn()
    stopping.set()
    await turn()
    home.host.clock.now += 3.0
    loading.set()
    await guest.go()

    assert [(progress.stage, progress.num_ahead) for progress in told] == [
        (Stage.QUEUED, 1), (Stage.QUEUED, 0), (Stage.MAKING_ROOM, 0), (Stage.LOADING, 0),
    ]  # fmt: skip
    assert [str(progress) for progress in told][::3] == ["c: queued behind 1 other", "c: loading, takes about 10 s"]


async def test_a_failing_callback_fails_its_own_request_only() -> None:
    home = house()

    def failing(_: Progress) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await home.guest("a", on_progress=failing).task
    await home.visit("a")


async def test_idle_servers_fall_asleep_where_that_is_enough_and_wake_when_needed() -> None:
    home = house(6.0, asleep_mb=1.0)
    await home.visit("aba")

    assert home.host.calls == ["load a", "sleep a", "load b", "sleep b", "wake a"]
    assert home.host.used_mb == {"b": 1.0, "a": 4.0}
    assert (home.residency.counts.num_loads, home.residency.counts.num_wakes, home.residency.counts.num_sleeps) == (2, 1, 2)


async def test_a_server_that_does_not_wake_is_loaded_anew() -> None:
    home = house(6.0, asleep_mb=1.0)
    home.host.fail("wake a", ExpertUnreachable("gone"))
    await home.visit("aba")

    assert home.host.calls[-3:] == ["wake a", "stop a", "load a"]


async def test_a_server_that_neither_wakes_nor_ends_keeps_its_memory() -> None:
    home = house(6.0, asleep_mb=1.0)
    home.host.fail("wake a", ExpertUnreachable("gone"))
    home.host.fail("stop a", ExpertUnreachable("the process does not end"))

    with pytest.raises(ExpertUnreachable, match="could not be loaded: the process does not end"):
        await home.visit("aba")
    assert home.state("a") == "stuck"
    assert home.residency.snapshot().servers[0].held_mb == 4.0


async def test_a_server_that_does_not_fall_asleep_is_stopped() -> None:
    home = house(6.0, asleep_mb=1.0)
    home.host.fail("sleep a", ExpertUnreachable("gone"))
    await home.visit("ab")

    assert home.host.calls == ["load a", "sleep a", "stop a", "load b"]


async def test_times_are_measured_and_kept() -> None:
    """The first measurement replaces what was declared, later ones move the estimate."""
    home = house(6.0, asleep_mb=1.0)
    home.host.takes_s = {"load": 20.0, "sleep": 3.0, "wake": 2.0, "stop": 1.0}
    await home.visit("aba")
    (a, _, c, _) = home.residency.snapshot().servers
    lost_s = home.residency.counts.lost_s
    home.host.takes_s["load"] = 30.0
    await home.residency.evict("a", Action.STOP, Deadline.after(60))
    await home.visit("a")

    assert (a.load_s, a.sleep_s, a.wake_s, c.load_s) == (20.0, 3.0, 2.0, 10.0)
    assert lost_s == 2 * 20 + 2 * 3 + 2
    assert home.residency.snapshot().servers[0].load_s == pytest.approx(23.0)


async def test_measured_times_change_what_goes() -> None:
    """Under cost a server that turned out slow to load is kept."""
    home = house(policy="cost")
    home.host.takes_s["load"] = 100.0
    await home.visit("a")
    home.host.takes_s["load"] = 1.0
    await home.visit("bbc")

    assert home.host.calls == ["load a", "load b", "stop b", "load c"]


async def test_a_server_that_cannot_be_stopped_keeps_its_memory_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    home = house(4.0, stuck_retry_s=0.01)
    home.host.fail("stop a", ExpertUnreachable("the process does not end"))
    await home.visit("ab")

    assert home.host.calls == ["load a", "stop a", "stop a", "load b"]
    assert "does not end" in caplog.text


async def test_requests_for_a_stuck_server_are_told_so() -> None:
    home = house(4.0)
    home.host.fail("stop a", ExpertUnreachable("the process does not end"))
    await home.visit("a")
    waiting = home.guest("b")
    await turn()

    with pytest.raises(ExpertUnreachable, match="could not be loaded: the process does not end"):
        await home.guest("a").task
    assert not waiting.task.done()
    await home.residency.evict("a", Action.STOP, Deadline.after(60))  # by hand, without waiting for the next try
    await waiting.go()
    assert home.host.calls == ["load a", "stop a", "stop a", "load b"]


async def test_prefetch_loads_into_free_memory_and_the_request_finds_it_up() -> None:
    home = house()
    first = await home.inside("a")
    begun = home.residency.prefetch("b")
    await turn()
    await home.visit("b")

    assert begun
    assert home.host.calls == ["load a", "load b"]
    assert home.residency.counts.num_hits == 1
    await first.go()


async def test_prefetch_takes_nothing_that_is_used_or_waited_for() -> None:
    home = house(4.0)
    first = await home.inside("a")
    begun = [home.residency.prefetch("b")]
    waiting = home.guest("c")
    await turn()
    begun.append(home.residency.prefetch("b"))
    await first.go()
    await waiting.go()

    assert begun == [False, False]
    assert home.host.calls == ["load a", "stop a", "load c"]


async def test_prefetch_pushes_out_what_the_plan_needs_later_not_sooner() -> None:
    home = house(4.0, policy="belady")
    await home.visit("a")
    home.residency.expect("ab")
    sooner = home.residency.prefetch("b")
    home.residency.expect("ba")
    later = home.residency.prefetch("b")
    await turn()

    assert (sooner, later) == (False, True)
    assert home.host.calls == ["load a", "stop a", "load b"]


async def test_what_is_released_goes_and_what_somebody_uses_stays() -> None:
    home = house(12.0)
    first = await home.inside("a")
    home.residency.release("a")
    await turn()
    while_used = list(home.host.calls)
    await first.go()
    home.residency.pin("a")
    home.residency.release("a")
    await turn()
    while_pinned = list(home.host.calls)
    home.residency.unpin("a")
    home.residency.release("a")
    await turn()

    assert while_used == while_pinned == ["load a"]
    assert home.host.calls == ["load a", "stop a"]


async def test_a_request_takes_over_a_prefetch_and_another_makes_it_give_way() -> None:
    home = house(4.0)
    home.host.takes_s["load"] = 10.0
    gate = home.host.block("load a")
    home.residency.prefetch("a")
    await turn()
    taken = home.guest("a")
    other = home.guest("b")
    await turn()
    gate.set()
    await taken.inside.wait()
    await taken.go()
    await other.go()
    assert home.host.cancelled == []
    gate.clear()
    home.residency.prefetch("a")
    await turn()
    await home.visit("c")

    assert home.host.cancelled == ["load a"]


async def test_a_prefetch_that_fails_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    home = house()
    home.host.fail("load a", ExpertUnreachable("a hiccup"))
    home.residency.prefetch("a")
    await turn()
    await home.visit("a")

    assert home.host.calls == ["load a", "load a"]
    assert "a hiccup" in caplog.text


async def test_belady_follows_the_plan() -> None:
    home = house(policy="belady")
    await home.visit("ab")
    home.residency.expect("cab")
    await home.visit("c")

    assert home.host.calls == ["load a", "load b", "stop b", "load c"]


async def test_eviction_by_hand_waits_for_the_requests_inside() -> None:
    home = house(asleep_mb=1.0)
    first = await home.inside("a")
    asked = asyncio.create_task(home.residency.evict("a", Action.SLEEP, Deadline.after(60)))
    await turn()
    late = home.guest("a")
    await turn()
    before = (asked.done(), late.inside.is_set())
    await first.go()
    await asked
    await late.go()  # the next request wakes it

    assert before == (False, False)
    assert home.host.calls == ["load a", "sleep a", "wake a"]


async def test_eviction_by_hand_says_why_it_cannot_be_done() -> None:
    home = house()
    first = await home.inside("a")
    home.residency.pin("b")

    with pytest.raises(Conflict, match="pinned"):
        await home.residency.evict("b", Action.STOP, Deadline.after(60))
    with pytest.raises(InvalidRequest, match="cannot sleep"):
        await home.residency.evict("a", Action.SLEEP, Deadline.after(60))
    with pytest.raises(ExpertTimeout, match="still awake with 1 requests"):
        await home.residency.evict("a", Action.STOP, Deadline.after(0.01))
    with pytest.raises(NotFound, match="did you mean"):
        await home.residency.evict("A", Action.STOP, Deadline.after(60))
    await first.go()
    home.host.fail("stop a", ExpertUnreachable("the process does not end"))
    with pytest.raises(ExpertUnreachable, match="does not end"):
        await home.residency.evict("a", Action.STOP, Deadline.after(60))
    await home.residency.evict("a", Action.STOP, Deadline.after(60))
    assert home.state("a") == "gone"


async def test_eviction_by_hand_ends_a_load_that_nobody_waits_for() -> None:
    home = house()
    home.host.block("load a")
    home.residency.prefetch("a")
    await turn()
    await home.residency.evict("a", Action.STOP, Deadline.after(60))

    assert home.host.cancelled == ["load a"]


async def test_a_server_that_died_is_loaded_again() -> None:
    home = house()
    first = await home.inside("a")
    home.host.used_mb.clear()
    home.residency.lost("a")
    again = await home.inside("a")

    assert home.host.calls == ["load a", "load a"]
    await first.go()
    await again.go()
    assert home.residency.snapshot().servers[0].num_holders == 0


async def test_a_server_that_was_found_running_is_used_as_it_is() -> None:
    home = house(asleep_mb=1.0)
    adopted = [home.residency.adopt("a"), home.residency.adopt("b", asleep=True), home.residency.adopt("c")]
    home.host.used_mb = {"a": 4.0, "b": 1.0}
    await home.visit("a")

    assert adopted == [True, True, False]
    assert home.host.calls == []


async def test_what_is_declared_anew_counts_from_the_next_load() -> None:
    home = house()
    await home.visit("a")
    home.residency.declare(ServerSpec("a", 6.0, load_s=99.0, wake_s=7.0))
    before = home.residency.snapshot().servers[0]
    await home.residency.evict("a", Action.STOP, Deadline.after(60))
    after = home.residency.snapshot().servers[0]

    assert (before.memory_mb, before.wake_s) == (4.0, 1.0)
    assert (after.memory_mb, after.wake_s) == (6.0, 7.0)
    assert after.load_s == before.load_s  # which is measured


async def test_only_what_is_gone_can_be_forgotten() -> None:
    home = house()
    await home.visit("a")

    with pytest.raises(Conflict, match="stop it first"):
        home.residency.forget("a")
    home.residency.forget("b")
    with pytest.raises(ExpertUnavailable):
        await home.guest("b").task


async def test_closing_turns_everybody_away_and_leaves_nothing_running() -> None:
    home = house()
    home.host.block("load a")
    guest = home.guest("a")
    await turn()
    await home.residency.close()

    with pytest.raises(ExpertUnavailable, match="shutting down"):
        await guest.task
    with pytest.raises(ExpertUnavailable, match="shutting down"):
        await home.guest("b").task
    assert home.host.cancelled == ["load a"]
    assert len(asyncio.all_tasks()) == 1


async def test_the_snapshot_shows_everything() -> None:
    home = house()
    home.residency.pin("a")
    first = await home.inside("a")
    await home.visit("b")
    home.host.clock.now += 5.0
    waiting = [home.guest("c"), home.guest("d"), home.guest("d")]
    home.host.block("stop b")
    await turn()
    seen = home.residency.snapshot()
    a, b, c, d = seen.servers

    assert (seen.memory_mb, seen.held_mb, seen.policy) == (8.0, 8.0, "lru")
    assert (a.state, a.pinned, a.num_holders, a.idle_s, a.for_s) == ("awake", True, 1, None, 5.0)
    assert (b.state, b.held_mb, b.idle_s, b.num_loads) == ("stopping", 4.0, 5.0, 1)
    assert (c.state, c.held_mb, c.num_waiting) == ("gone", 0.0, 1)
    assert (d.memory_mb, d.num_waiting, d.idle_s) == (4.0, 2, None)
    home.host.block("stop b").set()
    await first.go()
    for guest in waiting:
        await guest.go()
