"""``consilium batch``: what is wrong is told before anything is loaded, and what was answered is neither lost nor asked again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from api.cli import batch_delivery
from api.cli.batch_run import LEASE_S
from api.cli.main import run
from domain.errors import StorageError
from experts_registry.files import FileStore
from tests.fakes.batch_rig import chat_line
from tests.fakes.upstream import Stall, Upstream, running_upstream
from workers.vllm.records import Ownership

ROOT = Path(__file__).parents[3]
WITHIN_S = 60.0

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSILIUM_SEED_ZOO", "false")
    return tmp_path


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def asks(number: int, **changes: Any) -> dict[str, Any]:
    return chat_line(f"q{number}", f"question {number}", **{"model": "speaker", **changes})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def add_speaker(upstream: Upstream) -> None:
    """The upstream's model as an expert, four calls at a time."""
    card = {"id": "speaker", "backend": "openai", "model": "speaker", "base_url": upstream.base_url, "max_in_flight": 4}
    manifest = write_lines(Path("experts.yaml"), {"experts": [card]})
    assert await typed("experts", "apply", "-f", manifest, "--local") == 0


async def typed(*arguments: object) -> int:
    """The exit code of the command, in this process."""
    return await asyncio.to_thread(run, [str(argument) for argument in arguments])


# --- what is told before anything is loaded -----------------------------------------------------------------------------


Arrange = Callable[[Path], None]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.jsonl", "-o", "out.jsonl"], "the file nothing.jsonl is not there"),
        (["in.jsonl", "-o", "no/out.jsonl"], "the folder no is not there"),
        (["in.jsonl", "-o", "a_folder"], "a_folder is there and is no file"),
        (["in.jsonl", "-o", "in.jsonl"], "in.jsonl is the input"),
        (["x.errors.jsonl", "-o", "x"], "x.errors.jsonl is the input"),
        (["in.jsonl", "-o", "out.jsonl", "--endpoint", "/v1/chat"], "known are /v1/chat/completions"),
        (["in.jsonl", "-o", "out.jsonl", "--max-calls", "0"], "--max-calls"),
        (["/dev/null", "-o", "out.jsonl"], "/dev/null is no regular file"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a_folder").mkdir()
    write_lines(folder / "x.errors.jsonl", asks(1))
    before = write_lines(folder / "in.jsonl", asks(1)).read_bytes()

    code = run(["batch", "run", *arguments])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert (folder / "in.jsonl").read_bytes() == before
    assert not (folder / "data").exists()


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        ([], [], ["the file has no requests"]),
        ([asks(1), "{broken", asks(1)], [], ["nothing was run: line 2: the line is not valid JSON", "line 3: the custom_id 'q1'"]),
        ([asks(1)], ["--endpoint", "/v1/completions"], ["line 1: url is '/v1/chat/completions'"]),
        ([asks(1)], ["--strategy", "consilium/nobodys"], ["there is no strategy 'nobodys'"]),
    ],
    ids=["empty", "wrong lines", "another endpoint", "unknown strategy"],
)
def test_wrong_input_is_told_by_line_and_nothing_is_kept(
    command: str, lines: Sequence[Any], options: list[str], told: list[str], *, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands at the output from before stays."""
    (folder / "out.jsonl").write_text("from before")
    output = ["-o", "out.jsonl"] if command == "run" else []

    code = run(["batch", command, str(write_lines(folder / "in.jsonl", *lines)), *output, *options])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert all(text in err for text in told), err
    assert (folder / "out.jsonl").read_text() == "from before"
    assert list((folder / "data" / "files").glob("*")) == []


async def test_servers_of_another_process_are_told_before_every_line_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A service on the same data dir manages them: the batch belongs there."""
    assert await typed("experts", "add", "managed", "--backend", "vllm", "--model", "weights", "--local") == 0
    write_lines(folder / "in.jsonl", asks(1, model="managed"))
    other = Ownership.take(folder / "data" / "vllm")
    try:
        code = await typed("batch", "run", "in.jsonl", "-o", "out.jsonl")
    finally:
        other.release()

    assert code == 1
    err = capsys.readouterr().err
    assert "another process manages the vLLM servers" in err
    assert "POST /v1/batches" in err


# --- what it does ------------------------------------------------------------------------------------------------------


async def test_every_line_is_answered_and_failed_ones_are_named(
    folder: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the input's order; exit code 1 with failed lines, 0 without; nothing is kept in the data dir."""
    await add_speaker(upstream)
    write_lines(folder / "in.jsonl", asks(1), asks(2, model="nobody"), asks(3))
    capsys.readouterr()

    code = await typed("batch", "run", "in.jsonl", "-o", "out.jsonl", "--json")

    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert code == 1
    assert "1 line failed: out.jsonl.errors.jsonl" in err
    assert (summary["state"], summary["lines"]) == ("completed", {"total": 3, "completed": 2, "failed": 1})
    assert (summary["num_calls"], summary["num_loads"], summary["completion_tokens"]) == (2, 0, 28)
    assert (summary["output"], summary["errors"]) == ("out.jsonl", "out.jsonl.errors.jsonl")
    answers, (error,) = read_lines(folder / "out.jsonl"), read_lines(folder / "out.jsonl.errors.jsonl")
    assert [line["custom_id"] for line in answers] == ["q1", "q3"]
    assert answers[0]["response"]["body"]["choices"][0]["message"]["content"] == "abcdefghij"
    assert (error["custom_id"], error["response"]["status_code"]) == ("q2", 404)
    assert list((folder / "data" / "files").glob("*")) == []

    write_lines(folder / "in.jsonl", asks(1))
    assert await typed("batch", "run", "in.jsonl", "-o", "out.jsonl") == 0
    assert "1 answered, 0 failed, of 1" in capsys.readouterr().out
    assert len(read_lines(folder / "out.jsonl")) == 1
    assert not (folder / "out.jsonl.errors.jsonl").exists(), "those of the batch before"


async def test_a_plan_shows_the_buckets_and_asks_nobody(folder: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    await add_speaker(upstream)
    write_lines(folder / "in.jsonl", asks(1), asks(2, model="nobody"), asks(3))
    capsys.readouterr()

    assert await typed("batch", "plan", "in.jsonl", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert await typed("batch", "plan", "in.jsonl") == 0
    out, err = capsys.readouterr()

    assert (plan["num_lines"], plan["num_calls"], plan["num_loads"]) == (2, 2, 0)
    assert [(bucket["expert"], bucket["num_calls"]) for turn in plan["turns"] for bucket in turn["buckets"]] == [("speaker", 2)]
    assert [refused["line"] for refused in plan["refused"]] == [2]
    assert "speaker" in out
    assert "1 line would fail before any expert is asked; the first is line 2" in err
    assert upstream.requests == []


async def test_answers_that_cannot_be_written_are_kept(
    folder: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the output is full when the batch is done: the same command writes them, and asks nobody again."""
    await add_speaker(upstream)
    write_lines(folder / "in.jsonl", asks(1), asks(2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(batch_delivery.shutil, "copyfileobj", full)
        code = await typed("batch", "run", "in.jsonl", "-o", "out.jsonl")
    err = capsys.readouterr().err
    assert code == 1
    assert "out.jsonl cannot be written: No space left on device. Its answers are kept" in err
    assert names_in(folder) == {"data", "experts.yaml", "in.jsonl"}, "no half file stays"

    assert await typed("batch", "run", "in.jsonl", "-o", "elsewhere.jsonl") == 0

    assert len(read_lines(folder / "elsewhere.jsonl")) == 2
    assert len(upstream.requests) == 2
    assert list((folder / "data" / "files").glob("*")) == []


async def test_a_full_data_dir_ends_the_run_and_not_the_batch(
    folder: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered is in the database: with room for the output, the same command writes it and asks nobody again."""
    await add_speaker(upstream)
    write_lines(folder / "in.jsonl", asks(1), asks(2))

    async def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "write", full)
        code = await typed("batch", "run", "in.jsonl", "-o", "out.jsonl")
    err = capsys.readouterr().err
    assert code == 1
    assert "error: the disk is full; what is answered is kept, and the same command goes on" in err
    assert "Traceback" not in err

    assert await typed("batch", "run", "in.jsonl", "-o", "out.jsonl") == 0
    assert "2 of 2 lines are over" in capsys.readouterr().err
    assert len(read_lines(folder / "out.jsonl")) == 2
    assert len(upstream.requests) == 2


# --- interrupted -------------------------------------------------------------------------------------------------------


async def num_completed(folder: Path, at_least: int) -> None:
    """Wait until so many lines are durable."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(folder / "data" / "consilium.db")) as database:
                found = database.execute("SELECT max(num_completed) FROM batches").fetchone()
                if (found[0] or 0) >= at_least:
                    return
            await asyncio.sleep(0.05)


def lease(folder: Path) -> tuple[str | None, float]:
    """Who works on the only batch, and until when (seconds since the epoch)."""
    with closing(sqlite3.connect(folder / "data" / "consilium.db", timeout=WITHIN_S)) as database:
        ((owner, until),) = database.execute("SELECT owner, leased_until FROM batches")
    return owner, until


def set_lease(folder: Path, *, until: float) -> None:
    with closing(sqlite3.connect(folder / "data" / "consilium.db", timeout=WITHIN_S)) as database, database:
        database.execute("UPDATE batches SET leased_until = ?", (until,))


async def lines_to(process: asyncio.subprocess.Process, text: str) -> str:
    """What *process* says up to the line with *text*."""
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(WITHIN_S):
        while text not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line.decode()
    return said


async def started(folder: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "api.cli.main", "batch", "run", "in.jsonl", "-o", "out.jsonl"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stderr=asyncio.subprocess.PIPE)


async def test_interrupted_and_killed_the_same_command_goes_on(folder: Path, upstream: Upstream) -> None:
    """Ctrl-C in the middle, SIGKILL in the middle of what is left, then to the end: every line is answered, and what was answered
    before is not asked again."""
    await add_speaker(upstream)
    write_lines(folder / "in.jsonl", *(asks(number) for number in range(30)))
    said = []
    for sign, num_done in ((signal.SIGINT, 10), (signal.SIGKILL, 20)):
        upstream.faults.extend([*[None] * 10, *[Stall()] * 4])
        process = await started(folder)
        await num_completed(folder, num_done)
        async with asyncio.timeout(WITHIN_S):
            await upstream.until_open(4)
        process.send_signal(sign)
        said.append((await process.communicate())[1].decode())
        assert process.returncode == (130 if sign is signal.SIGINT else -signal.SIGKILL), said[-1]
        assert not (folder / "out.jsonl").exists()
        await upstream.until_idle()
    # What the killed run left ends by itself. Here it ends when the next one was seen to wait for it, however long that takes to start.
    owner, until = lease(folder)
    assert owner is not None
    assert time.time() - WITHIN_S < until <= time.time() + LEASE_S
    set_lease(folder, until=time.time() + 3600)
    process = await started(folder)
    waited = await lines_to(process, "waiting until nobody works on")
    set_lease(folder, until=0.0)
    said.append(waited + (await process.communicate())[1].decode())

    assert process.returncode == 0, said[-1]
    assert "interrupted after 10 of 30 lines; the same command goes on" in said[0]
    assert "Traceback" not in said[0]
    assert "10 of 30 lines are over" in said[1]
    assert "20 of 30 lines are over" in said[2]
    assert [line["custom_id"] for line in read_lines(folder / "out.jsonl")] == [f"q{number}" for number in range(30)]
    asked = [str(request.body["messages"][-1]["content"]) for request in upstream.requests]
    assert len(asked) == 30 + 2 * 4, "those that were under way are asked again"
    assert all(1 <= asked.count(f"question {number}") <= 3 for number in range(30))
