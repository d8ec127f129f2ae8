"""Which server works on which device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from orchestrator.batch.host import Device, Host
from orchestrator.batch.placement import Share, Work, place
from orchestrator.batch.planning import plan_batch
from tests.fakes.batches import PATIENT, host_of, table_of


def finish_s(shares: dict[str, tuple[Share, ...]], work: dict[str, Work], host: Host) -> dict[str, float]:
    """Seconds on each device, loads included."""
    busy = {device.id: 0.0 for device in host.devices}
    for server, parts in shares.items():
        for share in parts:
            assert share.device is not None
            loaded = server in next(device.resident for device in host.devices if device.id == share.device)
            busy[share.device] += share.part * work[server].seconds + (0 if loaded else host.servers[server].load_s)
    return busy


def test_the_longest_goes_first_and_each_to_where_it_is_done_soonest() -> None:
    work = {"a": Work(7, 7), "b": Work(6, 6), "c": Work(5, 5), "d": Work(4, 4), "e": Work(3, 3)}
    shares = place(work, host := host_of("abcde", num_devices=2, load_s=5))

    assert finish_s(shares, work, host) == {"d0": 7 + 4 + 3 + 15, "d1": 6 + 5 + 10}
    assert all(len(parts) == 1 for parts in shares.values())


def test_a_loaded_server_is_used_where_it_is() -> None:
    host = replace(host_of("ab", num_devices=2), devices=(Device("d0", 2), Device("d1", 2, resident=("a",))))

    assert place({"a": Work(5, 5), "b": Work(4, 4)}, host) == {"a": (Share("d1"),), "b": (Share("d0"),)}


def test_a_server_goes_only_where_it_fits() -> None:
    host = replace(host_of("ab", sizes={"a": 8, "b": 8}), devices=(Device("small", 4), Device("large", 8)))

    assert place({"a": Work(5, 5), "b": Work(5, 5)}, host) == {"a": (Share("large"),), "b": (Share("large"),)}


def only_on(host: Host, **devices: str) -> Host:
    """*host* with servers that may be loaded on one device each."""
    bound = {name: replace(host.servers[name], devices=frozenset({device})) for name, device in devices.items()}
    return replace(host, servers={**host.servers, **bound})


def test_a_server_goes_only_where_it_may_and_gets_no_second_copy_elsewhere() -> None:
    """However busy its own device is: who loads it knows that one only."""
    work = {"a": Work(500, 500), "b": Work(400, 400), "free": Work(300, 300)}
    shares = place(work, only_on(host_of(work, num_devices=2, load_s=1), a="d1", b="d1"))

    assert shares == {"a": (Share("d1"),), "b": (Share("d1"),), "free": (Share("d0"),)}


def test_a_server_that_is_too_large_for_its_own_devices_is_impossible_although_another_has_room() -> None:
    host = replace(host_of("a", sizes={"a": 8}), devices=(Device("small", 4), Device("large", 8)))

    assert host.obstacle("a") is None
    why = only_on(host, a="small").obstacle("a")
    assert why == "its server 'a' needs 8 MB, and none of its devices (small) has more than 4 MB for it"
    with pytest.raises(InvalidRequest, match="'a' is said to be loaded on 'large', and may not be there"):
        replace(only_on(host, a="small"), devices=(Device("large", 8, resident=("a",)),))


def test_an_overloaded_server_gets_a_second_copy_when_that_saves_more_than_its_load() -> None:
    work = {"hot": Work(100, 100), "cold": Work(10, 10)}
    shares = place(work, host := host_of(work, num_devices=2, load_s=10))
    busy = finish_s(shares, work, host)

    assert [share.device for share in shares["hot"]] == ["d0", "d1"]
    assert busy["d0"] == pytest.approx(busy["d1"])
    assert max(busy.values()) < 110 - 10


def test_no_second_copy_is_made_that_saves_less_than_its_load() -> None:
    work = {"hot": Work(38, 38), "cold": Work(10, 10)}  # 18 apart with the loads: 9 to save at the price of 10

    assert all(len(parts) == 1 for parts in place(work, host_of(work, num_devices=2, load_s=10)).values())


def test_one_call_is_not_split() -> None:
    work = {"hot": Work(100, 1), "cold": Work(1, 1)}

    assert len(place(work, host_of(work, num_devices=2, load_s=1))["hot"]) == 1


@PATIENT
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 200), min_size=1),
    st.integers(1, 4),
    st.sampled_from([0, 1, 20, 300]),
)
def test_copies_never_make_the_longest_device_longer_and_parts_make_a_whole(
    seconds: dict[str, int], num_devices: int, load_s: float
) -> None:
    work = {server: Work(s, s) for server, s in seconds.items()}
    host = host_of(work, num_devices=num_devices, load_s=load_s)
    shares = place(work, host)
    whole = place({server: Work(each.seconds, 1) for server, each in work.items()}, host)  # one call each: nothing to split

    assert max(finish_s(shares, work, host).values()) <= max(finish_s(whole, work, host).values()) + 1e-9
    for parts in shares.values():
        assert sum(share.part for share in parts) == pytest.approx(1)
        assert len({share.device for share in parts}) == len(parts)


def test_a_split_bucket_is_cut_in_two_and_the_plan_counts_the_second_copys_load() -> None:
    table = table_of(*[(["hot", "cold"], None)] * 10, *[(["hot"], None)] * 90)
    plan = plan_batch(table, host_of(["hot", "cold"], num_devices=2, load_s=10))
    calls = [call for turn in plan.turns if turn.server == "hot" for bucket in turn.buckets for call in bucket.calls]

    assert len(calls) == len(set(calls)) == 100
    assert plan.why_loads == "3 loads: 2 servers, 1 second copies"
    assert plan.prediction.total_s < 110


def test_several_slots_of_one_device_work_at_once_when_memory_holds_their_servers() -> None:
    table = table_of(*[(list("abcd"), None)] * 30)
    one, two = (plan_batch(table, host_of("abcd", memory_mb=4, num_slots=slots, load_s=1)).prediction.total_s for slots in (1, 2))

    assert (one, two) == (1 + 4 * 30, pytest.approx(62, abs=1))
