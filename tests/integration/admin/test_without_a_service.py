"""The command line on a database of its own, and ``consilium serve`` as a process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer

import httpx
import pytest

from api.cli.main import run
from experts_registry.database import Database

ROOT = Path(__file__).parents[3]
READY_WITHIN_S = 90.0


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSILIUM_SEED_ZOO", "false")
    monkeypatch.setattr("api.cli.connection.DEFAULT_URL", "http://127.0.0.1:9")


def test_the_registry_is_worked_on_in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a service, commands make the database, change it and read it; they say so on stderr and make no admin key."""
    added = run(["experts", "add", "sql", "--backend", "embedded", "--model", "numerals"])
    listed = run(["experts", "list", "--json"])

    out, err = capsys.readouterr()
    assert (added, listed) == (0, 0)
    assert json.loads(out[out.index("[") :])[0]["id"] == "sql"
    assert "working in this process" in err
    assert (tmp_path / "data" / "consilium.db").exists()
    assert not (tmp_path / "data" / "admin.key").exists()


def test_the_readme_s_expert_can_be_added_beside_the_zoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command as the README gives it, on the registry that a first start makes."""
    monkeypatch.setenv("CONSILIUM_SEED_ZOO", "true")
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("consilium experts add ")]

    code = run(shlex.split(line, comments=True)[1:])

    out, err = capsys.readouterr()
    assert code == 0, err
    assert "new skill: essays" in out


def test_an_embedded_expert_without_a_folder_is_refused_when_it_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "experts.yaml"
    manifest.write_text("experts:\n- {id: foo, backend: embedded, model: numerls}\n")

    codes = [
        run(["experts", "add", "foo", "--backend", "embedded", "--model", "numerls"]),
        run(["experts", "apply", "-f", str(manifest)]),
        run(["experts", "list", "--json"]),
    ]

    out, err = capsys.readouterr()
    assert codes == [2, 2, 0]
    assert err.count("model: the folder 'numerls' of expert 'foo' does not exist; did you mean 'numerals'?") == 2
    assert json.loads(out) == []


def test_looking_at_the_registry_loads_no_model(tmp_path: Path) -> None:
    code = "import sys; from api.cli.main import run; run(['experts', 'list', '--local']); print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_a_locked_database_ends_the_command_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(["db", "upgrade"])
    monkeypatch.setattr(Database, "connect", partial(Database.connect, busy_timeout_s=0.05))
    monkeypatch.setattr("experts_registry.schema.UPGRADE_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(tmp_path / "data" / "consilium.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    capsys.readouterr()
    try:
        code = run(["experts", "list", "--local"])
    finally:
        holder.close()

    err = capsys.readouterr().err
    assert code == 1
    assert "error: " in err
    assert "locked" in err
    assert "Traceback" not in err


def test_a_database_of_a_newer_version_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["db", "upgrade"])
    with sqlite3.connect(tmp_path / "data" / "consilium.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()

    assert run(["experts", "list", "--local"]) == 1
    assert "from_the_future" in capsys.readouterr().err


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """``consilium serve`` on a free port: the process, its URL, and what it has said until it was ready."""
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        guard = Timer(READY_WITHIN_S, process.kill)
        guard.start()
        try:
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("  curl "):
                    break
            yield process, said[-1].split()[1].removesuffix("/v1/chat/completions"), said
        finally:
            guard.cancel()
            process.kill()


def test_serve_tells_where_it_is_and_stops_cleanly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it listens, where the admin key is and how to ask; commands find the key; SIGTERM ends it with code 0."""
    with served(tmp_path) as (process, url, said):
        text = "".join(said)
        key = (tmp_path / "data" / "admin.key").read_text().strip()
        added = run(["experts", "add", "sql", "--backend", "embedded", "--model", "numerals", "--url", url])
        ready = httpx.get(f"{url}/ready", trust_env=False).status_code
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)

    assert f"starting on {url}" in text
    assert "admin.key" in text
    assert text.count(key) == 1
    assert "ready: 0 experts" in text
    assert (added, ready, code) == (0, 200, 0)
    assert "working in this process" not in capsys.readouterr().err


def test_a_key_that_is_there_is_not_told_again(tmp_path: Path) -> None:
    """A later start says where the key is, not what it is; settings that do not exist are pointed out."""
    key = "ck-admin-made-at-the-first-start"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text(key)
    with served(tmp_path, CONSILIUM_URL="http://x", CONSILIUM_PROT="1") as (_, _, said):
        text = "".join(said)

    assert key not in text
    assert "CONSILIUM_PROT is no setting; did you mean CONSILIUM_PORT?" in text
    assert "CONSILIUM_URL" not in text
