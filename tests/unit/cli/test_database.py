"""``consilium db``."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from api.cli.main import run
from experts_registry.database import Database


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The SQLite file of the data dir that the commands work on; it is not there yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "consilium.db"


def check_fails(capsys: pytest.CaptureFixture[str]) -> str:
    """What ``db check`` says when it fails: one line and exit code 1."""
    capsys.readouterr()
    code = run(["db", "check"])
    out, err = capsys.readouterr()
    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_upgrade_makes_a_database_that_passes_its_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be repeated."""
    assert [run(["db", "upgrade"]), run(["db", "upgrade"]), run(["db", "check"])] == [0, 0, 0]
    assert file.exists()
    assert "up to date" in capsys.readouterr().out


def test_programs_are_told_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, state in (("upgrade", "up to date"), ("check", "ok")):
        assert run(["db", command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["state"] == state
        assert str(file) in told["database"]


def test_a_database_without_tables_says_what_to_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.mkdir()
    sqlite3.connect(file).close()

    assert "consilium db upgrade" in check_fails(capsys)


def test_a_migration_that_is_behind_says_what_to_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables of an older version (here: without their version) are not touched and not used."""
    run(["db", "upgrade"])
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM alembic_version")
    connection.close()

    assert "consilium db upgrade" in check_fails(capsys)


def test_a_database_of_a_newer_version_is_left_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["db", "upgrade"])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()

    assert "from_the_future" in check_fails(capsys)
    assert run(["db", "upgrade"]) == 1


def test_a_locked_database_is_told(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(["db", "upgrade"])
    monkeypatch.setattr(Database, "connect", partial(Database.connect, busy_timeout_s=0.05))
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked" in check_fails(capsys)
    finally:
        holder.close()


def test_a_file_that_is_no_database_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.mkdir()
    file.write_text("this is a letter to my aunt, and a rather long one at that\n" * 100)

    assert "not an SQLite database" in check_fails(capsys)


def test_a_server_that_is_not_there_is_told_without_the_password(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSILIUM_DATABASE_URL", "postgresql+asyncpg://someone:secret@127.0.0.1:9/nothing")

    assert "secret" not in check_fails(capsys)


@pytest.mark.parametrize("url", ["mysql://localhost/x", "nonsense"])
def test_a_database_that_is_none_of_ours_is_bad_input(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSILIUM_DATABASE_URL", url)

    assert run(["db", "check"]) == 2
    assert "postgresql+asyncpg" in capsys.readouterr().err


def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_PORT", "many")

    assert run(["db", "check"]) == 2
    assert "CONSILIUM_PORT" in capsys.readouterr().err
