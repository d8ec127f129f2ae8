"""State files, identities of processes, and the port that is kept."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import Conflict
from workers.vllm.port import HeldPort
from workers.vllm.procfs import MARK, ProcessIdentity, marked, memory_mb
from workers.vllm.records import Ownership, ServerExit, ServerRecord, boot_id, read_record, read_records

RECORD = ServerRecord("a", "f", "t", 4711, boot_id())


def written(folder: Path, record: ServerRecord, **more: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({**record.to_json(), "shim": None, "server": None, "exit": None, **more}))
    return folder


def test_a_record_is_read_as_the_shim_wrote_it(tmp_path: Path) -> None:
    told = {"code": None, "signal": 9, "cause": "itself", "num_left": 0}
    folder = written(tmp_path / "a", RECORD, server={"pid": 7, "started": 9}, exit=told)

    record = read_record(folder)

    assert record == replace(RECORD, server=ProcessIdentity(7, 9), exit=ServerExit(signal=9, cause="itself"))
    assert not record.is_alive
    assert str(record.exit) == "was killed by SIGKILL"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 1}', "null"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.json").write_text(text)

    assert read_record(tmp_path / "a") is None
    assert read_records(tmp_path) == []


def test_a_record_in_a_folder_of_another_name_is_not_believed(tmp_path: Path) -> None:
    written(tmp_path / "b", RECORD)

    assert read_records(tmp_path) == []
    assert read_records(tmp_path / "none") == []


def test_a_record_lives_only_with_its_very_process_since_this_start_of_the_machine() -> None:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None

    assert replace(RECORD, shim=me).is_alive
    assert not replace(RECORD, shim=replace(me, started=me.started + 1)).is_alive
    assert not replace(RECORD, shim=me, boot="another").is_alive
    assert not replace(RECORD, shim=me, exit=ServerExit()).is_alive


@pytest.mark.parametrize(
    ("end", "is_lasting", "said"),
    [
        (ServerExit(code=0), False, "ended with exit code 0"),
        (ServerExit(code=1), False, "ended with exit code 1"),
        (ServerExit(code=2), True, "ended with exit code 2"),
        (ServerExit(code=127, cause="could_not_run"), True, "ended with exit code 127"),
        (ServerExit(signal=11), False, "was killed by SIGSEGV"),
        (ServerExit(signal=200), False, "was killed by signal 200"),
        (ServerExit(), False, "is gone, nobody saw how"),
    ],
)
def test_an_end_says_how_and_whether_it_would_be_the_same_again(end: ServerExit, is_lasting: bool, said: str) -> None:
    assert (end.is_lasting, str(end)) == (is_lasting, said)


def test_a_folder_has_one_owner_until_it_is_released(tmp_path: Path) -> None:
    first = Ownership.take(tmp_path / "vllm")
    with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
        Ownership.take(tmp_path / "vllm")
    first.release()

    Ownership.take(tmp_path / "vllm").release()

    assert not (tmp_path / "vllm" / "owner.json").exists()


def test_a_process_is_known_by_its_mark_and_by_its_start() -> None:
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    mark = f"/nowhere/{os.getpid()}//a//t"
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], env={MARK: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        found = marked(f"/nowhere/{os.getpid()}//")
        assert [(process.identity.pid, process.mark) for process in found] == [(child.pid, mark)]
        assert found[0].identity.is_alive
        assert 1 < memory_mb([child.pid]) < 100
        assert replace(found[0].identity, started=1).opened() is None, "another process has this number"
        child.kill()
    assert not found[0].identity.is_alive
    assert ProcessIdentity.of(child.pid) is None
    assert memory_mb([child.pid]) == 0
    assert not marked(f"/nowhere/{os.getpid()}//")


def test_a_held_port_is_for_the_server_and_for_nobody_else() -> None:
    """What the operating system gives to those who ask for any port is never ours, and the server can bind it again and again."""
    held = HeldPort()
    try:
        for _ in range(2):
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(("127.0.0.1", held.number))
                server.listen()
                with socket.create_connection(("127.0.0.1", held.number), timeout=10), server.accept()[0]:
                    pass
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", held.number))
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            only_ours = (held.number << 16 | held.number).to_bytes(4, sys.byteorder)
            stranger.setsockopt(socket.IPPROTO_IP, 51, only_ours)  # IP_LOCAL_PORT_RANGE, Linux 6.3: this port or none
            with pytest.raises(OSError, match="in use"):
                stranger.bind(("127.0.0.1", 0))
    finally:
        held.close()
