"""Which server each expert lives on, how it is started, and whose memory it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.experts import ServingOptions
from workers.managed.placement import HostMemory, Placement, Seat, Seen, Source, launch_key, place

MEMORY = HostMemory(processors_mb=8000, gpu_mb=80_000, assumed_mb=3600)


def base(expert_id: str, folder: str = "/models/base", **changes: Any) -> Source:
    return replace(Source(expert_id, folder, 512), **changes)


def adapter(expert_id: str, folder: str = "/models/base", rank: int = 8, **changes: Any) -> Source:
    return replace(Source(expert_id, folder, 512, f"/adapters/{expert_id}", rank), **changes)


def on_gpus(*gpus: str, **changes: Any) -> ServingOptions:
    return ServingOptions(gpus=gpus, **changes)


def placed(*sources: Source, memory: HostMemory = MEMORY, taken: tuple[str, ...] = (), **seen: Seen) -> Placement:
    return place(sources, memory, seen, taken=taken)


def test_adapters_share_the_server_of_their_base_which_has_its_name() -> None:
    placement = placed(adapter("chess"), base("generalist"), adapter("go", rank=32))

    (server,) = placement.servers.values()
    assert (server.id, server.launch.model, server.launch.served_name) == ("generalist", "/models/base", "generalist")
    assert server.launch.max_lora_rank == 32
    assert server.expert_ids == ("generalist", "chess", "go")
    assert placement.seats == {
        "generalist": Seat("generalist", "generalist"),
        "chess": Seat("generalist", "chess", "/adapters/chess"),
        "go": Seat("generalist", "go", "/adapters/go"),
    }


def test_a_base_that_is_no_expert_names_the_server_by_its_folder() -> None:
    placement = placed(adapter("a", "/models/Llama 3.1"), adapter("b", "/models/Llama 3.1"))

    assert list(placement.servers) == ["llama-3-1"]
    assert {seat.server_id for seat in placement.seats.values()} == {"llama-3-1"}


def test_no_server_takes_the_name_of_an_expert_that_it_is_not() -> None:
    placement = placed(adapter("a", "/models/math"), base("math", "/models/other"), taken=("math-base",))

    assert sorted(placement.servers) == ["math", "math-base-2"]
    assert placement.seats["a"].server_id == "math-base-2"


def test_experts_of_one_model_with_equal_options_share_a_server_others_do_not() -> None:
    placement = placed(base("a"), base("b"), base("c", serving=ServingOptions(dtype="half")), base("d", context_length=1024))

    assert {expert: seat.server_id for expert, seat in placement.seats.items()} == {"a": "a", "b": "a", "c": "c", "d": "d"}
    assert placement.seats["b"].model == "a"


def test_an_adapter_that_asks_for_another_server_than_its_base_s_has_none() -> None:
    wrong = adapter("b", serving=ServingOptions(kv_cache_gb=4))
    placement = placed(base("a"), wrong, adapter("c", serving=ServingOptions(max_lora_rank=8, pinned=True)))

    assert "leave out its `serving`" in placement.obstacles["b"]
    assert "b" not in placement.seats
    assert placement.servers["a"].expert_ids == ("a", "c")
    assert placement.servers["a"].pinned


def test_where_only_adapters_are_the_one_that_says_something_counts() -> None:
    placement = placed(adapter("a"), adapter("b", serving=ServingOptions(kv_cache_gb=4)), adapter("c", context_length=2048))

    (server,) = placement.servers.values()
    assert (server.launch.kv_cache_gb, server.launch.max_model_len) == (4, 2048)
    assert server.expert_ids == ("a", "b", "c")


def test_the_largest_rank_counts_declared_or_read() -> None:
    assert placed(base("a", serving=ServingOptions(max_lora_rank=64)), adapter("b")).servers["a"].launch.max_lora_rank == 64
    assert placed(base("a", serving=ServingOptions(max_lora_rank=4)), adapter("b")).servers["a"].launch.max_lora_rank == 8
    assert placed(base("a")).servers["a"].launch.max_lora_rank is None


def test_memory_is_what_is_declared_else_what_was_measured_else_what_is_assumed() -> None:
    options = ServingOptions(kv_cache_gb=2)
    assumed = placed(base("a", serving=options)).servers["a"]
    seen = Seen(load_s=40, memory_mb=2500)
    measured = placed(base("a", serving=options), **{launch_key(assumed.launch): seen}).servers["a"]
    declared = placed(base("a", serving=options, memory_mb=5000), **{launch_key(assumed.launch): seen}).servers["a"]

    assert assumed.spec.memory_mb == 3600 + 1024
    assert measured.spec.memory_mb == 2500 + 2 * 1024, "keys and values come on top of what was measured at the start"
    assert declared.spec.memory_mb == 5000
    assert {server.pool_mb for server in (assumed, measured, declared)} == {8000}


def test_times_are_what_was_measured_else_what_is_declared() -> None:
    options = ServingOptions(load_s=77.0)
    key = launch_key(placed(base("a", serving=options)).servers["a"].launch)
    declared = placed(base("a", serving=options), other=Seen(load_s=1)).servers["a"].spec
    measured = placed(base("a", serving=options), **{key: Seen(load_s=40, wake_s=0.5)}).servers["a"].spec

    assert declared.load_s == 77
    assert (measured.load_s, measured.wake_s, measured.sleep_s) == (40, 0.5, declared.sleep_s)


@pytest.mark.parametrize(
    ("memory_mb", "utilization", "share", "needed"),
    [(None, None, 0.9, 72_000), (20_000, None, 0.25, 20_000), (None, 0.5, 0.5, 40_000), (20_000, 0.5, 0.5, 40_000)],
)
def test_a_server_on_gpus_takes_its_share_of_their_memory(
    memory_mb: float | None, utilization: float | None, share: float, needed: float
) -> None:
    """vLLM takes what it is told to, whatever the model needs; so memory that is declared becomes the share."""
    options = on_gpus("0", gpu_memory_utilization=utilization, asleep_mb=900)
    server = placed(base("a", serving=options, memory_mb=memory_mb)).servers["a"]

    assert server.launch.gpu_memory_utilization == share
    assert (server.pool, server.pool_mb, server.spec.memory_mb, server.spec.asleep_mb) == ("gpu 0", 80_000, needed, 900)


def test_each_set_of_gpus_is_a_pool() -> None:
    placement = placed(
        base("a", "/a", serving=on_gpus("1", "0", tensor_parallel=2)),
        base("b", "/b", serving=on_gpus("0", "1")),
        base("c", "/c", serving=on_gpus("2")),
        base("d", "/d"),
    )

    pools = {server.id: (server.pool, server.pool_mb) for server in placement.servers.values()}
    assert pools == {"a": ("gpu 0,1", 160_000), "b": ("gpu 0,1", 160_000), "c": ("gpu 2", 80_000), "d": ("processors", 8000)}


def test_gpus_that_overlap_without_being_the_same_fail_only_the_later_server() -> None:
    placement = placed(
        base("a", "/a", serving=on_gpus("0", "1")), base("b", "/b", serving=on_gpus("1")), adapter("c", "/b"), base("d", "/d")
    )

    assert sorted(placement.servers) == ["a", "d"]
    assert sorted(placement.obstacles) == ["b", "c"]
    assert "must have the same GPUs, or none in common" in placement.obstacles["b"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (base("a", serving=ServingOptions(extra_arguments=("--port", "1"))), "cannot be passed on"),
        (base("a", serving=on_gpus("0"), memory_mb=90_000), "needs 90000 MB, and its GPUs have 80000 MB"),
        (base("a..b"), "server id"),
    ],
)
def test_a_card_that_cannot_be_served_says_why_and_leaves_the_others_alone(source: Source, says: str) -> None:
    placement = placed(source, base("z", "/z"))

    assert says in placement.obstacles[source.expert_id]
    assert list(placement.servers) == list(placement.seats) == ["z"]


def test_gpus_of_unknown_memory_say_which_setting_tells_it() -> None:
    placement = placed(base("a", serving=on_gpus("0")), memory=HostMemory(8000))

    assert "CONSILIUM_GPU_MEMORY_MB" in placement.obstacles["a"]


def test_the_order_of_cards_changes_nothing() -> None:
    sources = [
        base("a", "/a"),
        adapter("b", "/a"),
        adapter("c", "/c"),
        adapter("d", "/c", serving=ServingOptions(kv_cache_gb=2)),
        base("e"),
    ]

    assert placed(*sources) == placed(*reversed(sources))
