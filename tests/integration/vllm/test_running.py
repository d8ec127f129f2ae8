"""A server comes up, is watched, comes back, and goes with everything that it started. Real processes, a stand-in for vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from domain.errors import Conflict, ExpertProtocolError, InvalidRequest, NotFound
from tests.fakes.vllm import PROGRAM, processes, stand_in
from tests.integration.vllm.conftest import Open, until, until_state
from workers.vllm.command import Installation, VllmProgram
from workers.vllm.process import StartFailed
from workers.vllm.restart import RestartPolicy
from workers.vllm.status import ServerState, ServerStatus
from workers.vllm.supervisor import Supervisor


def ask(supervised: Supervisor, path: str, body: object = None, *, server_id: str = "stand-in") -> httpx.Response | None:
    """POST to the stand-in; None when it goes away without an answer."""
    url = supervised.base_url(server_id).removesuffix("/v1") + path
    try:
        return httpx.post(url, json=body, timeout=30, trust_env=False)
    except httpx.TransportError:
        return None


def served(supervised: Supervisor) -> list[str]:
    """What the stand-in lists as its models."""
    models = httpx.get(f"{supervised.base_url('stand-in')}/models", timeout=30, trust_env=False).json()
    return [model["id"] for model in models["data"]]


def environment_of(supervised: Supervisor) -> dict[str, str]:
    url = supervised.base_url("stand-in").replace("/v1", "/environment")
    environment: dict[str, str] = httpx.get(url, timeout=30, trust_env=False).json()
    return environment


def adapter(folder: Path, *, rank: int = 8) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": {rank}}}')
    return folder


async def num_starts(supervised: Supervisor) -> int:
    return sum(" starts: " in line for line in await supervised.logs("stand-in", 1000))


async def test_a_started_server_answers_and_is_measured(opened: Open) -> None:
    supervised = await opened(stand_in())

    await supervised.start("stand-in")

    assert served(supervised) == ["base"]
    status = supervised.status("stand-in")
    assert status.state is ServerState.READY
    assert status.pid is not None
    assert psutil.Process(status.pid).ppid() != os.getpid(), "a shim stands between"
    assert status.measured.load_s is not None
    assert status.measured.memory_mb is not None
    assert 2 < status.measured.memory_mb < 200


async def test_servers_have_ports_of_their_own_and_stop_together(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in(server_id="a"), stand_in(server_id="b"))

    await asyncio.gather(supervised.start("a"), supervised.start("b"), supervised.start("b"))

    assert supervised.base_url("a") != supervised.base_url("b")
    await supervised.close()
    assert not processes(root)
    assert [status.state for status in supervised.statuses()] == [ServerState.STOPPED, ServerState.STOPPED]


async def test_no_secret_of_ours_reaches_a_server(opened: Open, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "CONSILIUM_ADMIN_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("HF_TOKEN", "needed")
    supervised = await opened(stand_in())
    await supervised.start("stand-in")

    environment = environment_of(supervised)

    assert "a secret" not in environment.values()
    assert environment["HF_TOKEN"] == "needed"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


# --- crashes --------------------------------------------------------------------------------------------------------


async def test_a_crashed_server_comes_back_with_its_adapters(opened: Open, tmp_path: Path) -> None:
    supervised = await opened(stand_in())
    await supervised.start("stand-in")
    await supervised.load_adapter("stand-in", "lora", adapter(tmp_path / "lora"))
    before = supervised.status("stand-in")

    ask(supervised, "/crash", {"code": 7})

    await until(lambda: supervised.status("stand-in").pid not in (None, before.pid))
    await until_state(supervised, ServerState.READY)
    assert served(supervised) == ["base", "lora"]
    assert supervised.status("stand-in").num_failures == 1
    assert any("has ended with exit code 7" in line for line in await supervised.logs("stand-in"))


async def test_killing_the_whole_group_of_a_server_brings_it_back_whole(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in("--children", "deaf", "apart"), stop_grace_s=0.5)
    await supervised.start("stand-in")
    first = processes(root)
    assert len(first) == 4, "a shim, a server, two children"
    pid = supervised.status("stand-in").pid
    assert pid is not None

    os.killpg(pid, signal.SIGKILL)

    await until(lambda: supervised.status("stand-in").pid not in (None, pid))
    await until_state(supervised, ServerState.READY)
    assert not first & processes(root), "also the child that had left the group is gone"
    assert len(processes(root)) == 4


@pytest.mark.parametrize("extra", [(), ("--deaf", "--children", "deaf", "apart")])
async def test_a_killed_shim_leaves_nothing_behind_and_the_server_comes_back(opened: Open, root: Path, extra: tuple[str, ...]) -> None:
    supervised = await opened(stand_in(*extra), stop_grace_s=0.5)
    await supervised.start("stand-in")
    first = processes(root)
    pid = supervised.status("stand-in").pid
    assert pid is not None

    psutil.Process(psutil.Process(pid).ppid()).kill()

    await until(lambda: supervised.status("stand-in").pid not in (None, pid))
    await until_state(supervised, ServerState.READY)
    assert not first & processes(root)


async def test_a_start_that_fails_is_tried_again(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "left").write_text("2")
    supervised = await opened(stand_in("--crashes-left", str(tmp_path / "left")))

    await supervised.start("stand-in")

    assert await num_starts(supervised) == 3
    assert supervised.status("stand-in").num_failures == 2


async def test_a_server_that_keeps_failing_is_given_up_and_says_why(opened: Open) -> None:
    supervised = await opened(stand_in("--crash-at-start", "1"))

    with pytest.raises(StartFailed, match=r"given up after 3 failures in a row; the last: .* ended with exit code 1 .*$") as failed:
        await supervised.start("stand-in")

    status = supervised.status("stand-in")
    assert status.state is ServerState.FAILED
    assert "ValueError: it was told to crash" in status.reason
    assert "ValueError: it was told to crash" in failed.value.detail
    assert "\n" not in failed.value.message, "who asked an expert is not shown the log"
    assert await num_starts(supervised) == 3


async def test_after_it_was_given_up_somebody_can_ask_again(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "left").write_text("1")
    supervised = await opened(stand_in("--crashes-left", str(tmp_path / "left")), policy=RestartPolicy(max_failures=1))
    with pytest.raises(StartFailed):
        await supervised.start("stand-in")

    await supervised.start("stand-in")

    assert supervised.status("stand-in").state is ServerState.READY


async def test_arguments_that_vllm_does_not_know_are_not_tried_twice(opened: Open) -> None:
    supervised = await opened(stand_in("--no-such-argument"))

    with pytest.raises(StartFailed, match="exit code 2"):
        await supervised.start("stand-in")

    assert "unrecognized arguments: --no-such-argument" in supervised.status("stand-in").reason
    assert await num_starts(supervised) == 1


async def test_a_missing_program_is_told_with_what_to_do(root: Path) -> None:
    supervised = Supervisor(root, Installation(cpu=VllmProgram.module(root / "bin" / "python")), launches=[stand_in()])
    await supervised.open()
    try:
        with pytest.raises(StartFailed, match=r"its program is not there.*make vllm"):
            await supervised.start("stand-in")
        assert f"there is no program {root / 'bin' / 'python'}" in supervised.status("stand-in").reason
        with pytest.raises(InvalidRequest, match="needs a vLLM for GPUs"):
            Installation(cpu=PROGRAM).program_for(stand_in(gpus=("0",)))
    finally:
        await supervised.close()


async def test_a_program_that_is_none_is_told_and_not_tried_twice(root: Path, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("no program")
    (tmp_path / "program").chmod(0o755)
    supervised = Supervisor(root, Installation(cpu=VllmProgram.serve(str(tmp_path / "program"))), launches=[stand_in()])
    await supervised.open()
    try:
        with pytest.raises(StartFailed, match="exit code 127"):
            await supervised.start("stand-in")
        assert "Exec format error" in supervised.status("stand-in").reason
        assert await num_starts(supervised) == 1
    finally:
        await supervised.close()


async def test_without_restart_a_crash_is_reported_and_the_next_start_brings_it_up(opened: Open) -> None:
    down: list[ServerStatus] = []
    supervised = await opened(stand_in(), restart=False, on_down=down.append)
    await supervised.start("stand-in")

    ask(supervised, "/crash")

    await until(lambda: down)
    assert down[0].state is ServerState.FAILED
    assert down[0].base_url is None
    await supervised.start("stand-in")
    assert supervised.status("stand-in").state is ServerState.READY


# --- hangs ----------------------------------------------------------------------------------------------------------


async def test_a_start_that_hangs_ends_at_its_deadline(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in("--hang-at-start", "--children", "deaf"), start_timeout_s=0.5, stop_grace_s=0.5)

    with pytest.raises(StartFailed, match=r"was not ready within 0.5 s"):
        await supervised.start("stand-in")

    assert not processes(root)


async def test_a_server_that_serves_something_else_is_not_ready(opened: Open) -> None:
    supervised = await opened(stand_in("--serve-as", "other"))

    with pytest.raises(StartFailed, match="it serves 'other', not 'base'"):
        await supervised.start("stand-in")


async def test_a_server_that_hangs_is_ended_and_started_again(opened: Open) -> None:
    supervised = await opened(stand_in(), probe_timeout_s=3.0, max_failed_probes=1)
    await supervised.start("stand-in")
    before = supervised.status("stand-in").pid

    ask(supervised, "/hang")

    await until(lambda: supervised.status("stand-in").pid not in (None, before))
    await until_state(supervised, ServerState.READY)


async def test_stop_kills_what_ignores_sigterm_with_all_its_children(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in("--deaf", "--children", "plain", "deaf", "apart"), stop_grace_s=0.5)
    await supervised.start("stand-in")
    assert len(processes(root)) == 5

    await supervised.stop("stand-in")

    assert not processes(root)
    assert supervised.status("stand-in").state is ServerState.STOPPED
    assert any("has ended with signal 9" in line for line in await supervised.logs("stand-in"))


async def test_a_stop_ends_a_start_that_is_under_way(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in("--hang-at-start"))
    starting = asyncio.create_task(supervised.start("stand-in"))
    await until(lambda: len(processes(root)) == 2)

    await supervised.stop("stand-in")

    with pytest.raises(StartFailed, match="was asked to stop"):
        await starting
    assert not processes(root)


async def test_a_start_that_nobody_waits_for_any_more_leaves_nothing(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in("--hang-at-start"))
    starting = [asyncio.create_task(supervised.start("stand-in")) for _ in range(2)]
    await until(lambda: len(processes(root)) == 2)

    starting[0].cancel()
    await asyncio.wait({starting[0]})
    assert len(processes(root)) == 2, "another still waits"
    starting[1].cancel()
    await asyncio.wait({starting[1]})

    assert not processes(root)
    assert supervised.status("stand-in").state is ServerState.STOPPED


@pytest.mark.parametrize("another_waits", [False, True])
async def test_a_start_that_is_given_up_in_the_moment_in_which_it_succeeds_leaves_nothing_either(
    opened: Open, root: Path, monkeypatch: pytest.MonkeyPatch, another_waits: bool
) -> None:
    """Unless another waits for it as well."""
    supervised = await opened(stand_in())
    server = supervised._servers["stand-in"]
    enter, starting = server._enter, [asyncio.create_task(supervised.start("stand-in")) for _ in range(1 + another_waits)]

    def enter_and_cancel(state: ServerState, reason: str) -> None:
        enter(state, reason)
        if state is ServerState.READY:
            starting[-1].cancel()

    monkeypatch.setattr(server, "_enter", enter_and_cancel)
    await asyncio.wait(starting)

    assert starting[-1].cancelled()
    assert supervised.status("stand-in").state is (ServerState.READY if another_waits else ServerState.STOPPED)
    assert bool(processes(root)) is another_waits


# --- sleep and adapters ---------------------------------------------------------------------------------------------


async def test_sleep_and_wake_are_measured_and_only_for_a_server_that_is_up(opened: Open) -> None:
    supervised = await opened(stand_in())
    with pytest.raises(Conflict, match="is stopped and cannot be put to sleep"):
        await supervised.sleep("stand-in")
    await supervised.start("stand-in")

    await supervised.sleep("stand-in")
    assert supervised.status("stand-in").state is ServerState.ASLEEP
    with pytest.raises(Conflict, match="is asleep and cannot be given an adapter"):
        await supervised.load_adapter("stand-in", "lora", Path("/lora"))
    await supervised.wake("stand-in")

    status = supervised.status("stand-in")
    assert status.state is ServerState.READY
    assert None not in (status.measured.sleep_s, status.measured.wake_s, status.measured.asleep_mb)


async def test_a_lost_answer_to_sleep_is_asked_after_and_a_refusal_is_told(opened: Open) -> None:
    supervised = await opened(stand_in("--sleep-without-answer"), stand_in("--sleepless", server_id="sleepless"))
    await asyncio.gather(supervised.start("stand-in"), supervised.start("sleepless"))

    await supervised.sleep("stand-in")
    with pytest.raises(ExpertProtocolError, match="refused /sleep with HTTP 500: no sleep"):
        await supervised.sleep("sleepless")

    assert supervised.status("stand-in").state is ServerState.ASLEEP
    assert supervised.status("sleepless").state is ServerState.READY


async def test_a_server_that_dies_asleep_is_not_started_again(opened: Open) -> None:
    down: list[ServerStatus] = []
    supervised = await opened(stand_in(), on_down=down.append)
    await supervised.start("stand-in")
    await supervised.sleep("stand-in")

    ask(supervised, "/crash")

    await until(lambda: down)
    assert supervised.status("stand-in").state is ServerState.FAILED
    assert await num_starts(supervised) == 1


async def test_adapters_come_and_go_and_what_cannot_be_loaded_says_why(opened: Open, tmp_path: Path) -> None:
    supervised = await opened(stand_in(), stand_in(server_id="bare", max_lora_rank=None), max_adapters=2)
    await asyncio.gather(supervised.start("stand-in"), supervised.start("bare"))
    good, other, third = adapter(tmp_path / "good"), adapter(tmp_path / "other"), adapter(tmp_path / "third")

    await asyncio.gather(*(supervised.load_adapter("stand-in", "good", good) for _ in range(3)))
    await supervised.load_adapter("stand-in", "other", other)
    assert supervised.status("stand-in").adapters == ("good", "other")

    for name, path, why in [
        ("good", other, "unload that first"),
        ("third", third, "has 2 adapters, the most"),
    ]:
        with pytest.raises(Conflict, match=why):
            await supervised.load_adapter("stand-in", name, path)
    await supervised.unload_adapter("stand-in", "other")
    assert supervised.status("stand-in").adapters == ("good",)
    for server_id, name, path, why in [
        ("bare", "lora", good, "max_lora_rank"),
        ("stand-in", "base", good, "cannot be its name"),
        ("stand-in", "lora", Path("relative"), "absolute"),
        ("stand-in", "lora", tmp_path, "no LoRA adapter's"),
        ("stand-in", "lora", adapter(tmp_path / "large", rank=16), "rank is 16, and the server was started for adapters up to rank 8"),
    ]:
        with pytest.raises(InvalidRequest, match=why):
            await supervised.load_adapter(server_id, name, path)


# --- what is told ---------------------------------------------------------------------------------------------------


async def test_the_log_is_bounded_and_its_end_can_be_read(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in(), max_log_bytes=20_000)
    await supervised.start("stand-in")

    for part in range(10):
        ask(supervised, "/say", {"text": "".join(f"line {part * 100 + number} {'x' * 60}\n" for number in range(100))})
    lines: list[str] = []
    while not lines or not lines[-1].startswith("line 999 "):
        lines = await supervised.logs("stand-in", 150)

    assert [line.split()[1] for line in lines] == [str(number) for number in range(850, 1000)]
    sizes = {path.name: path.stat().st_size for path in (root / "stand-in").glob("server.log*")}
    assert set(sizes) == {"server.log", "server.log.1"}
    assert max(sizes.values()) <= 20_000


async def test_a_changed_declaration_is_taken_up_by_the_next_start(opened: Open) -> None:
    supervised = await opened(stand_in())
    await supervised.start("stand-in")

    supervised.declare(stand_in("--serve-as", "renamed", served_name="renamed"))
    assert supervised.status("stand-in").is_outdated
    with pytest.raises(Conflict, match="stop it first"):
        supervised.forget("stand-in")
    await supervised.stop("stand-in")
    await supervised.start("stand-in")

    assert not supervised.status("stand-in").is_outdated
    with pytest.raises(NotFound, match=r"did you mean.*stand-in"):
        await supervised.stop("standin")
