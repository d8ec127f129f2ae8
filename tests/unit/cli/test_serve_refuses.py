"""When ``consilium serve`` does not start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from api.cli.main import run


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_other_machines_only_with_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """On an address that others can reach it refuses to start without API keys, and says how to set them."""
    assert run(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "CONSILIUM_API_KEYS" in capsys.readouterr().err


def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert run(["serve", "--port", str(port)]) == 1

    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_a_host_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_API_KEYS", "a-key")

    assert run(["serve", "--host", "no.such.host.invalid", "--port", "0"]) == 2
    assert "no.such.host.invalid" in capsys.readouterr().err


def test_a_wrong_log_level_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--log-level", "loud"]) == 2
    assert "LOG_LEVEL" in capsys.readouterr().err


def test_a_misspelt_line_of_the_env_file_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CONSILIUM_TRACE_DAY=3\nCONSILIUM_TRACES=false\nOTHER=1\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 1

    assert "warning: CONSILIUM_TRACE_DAY is no setting; did you mean CONSILIUM_TRACE_DAYS?\n" in (said := capsys.readouterr().err)
    assert said.count("warning: ") == 1


def test_managed_servers_with_several_processes_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes cannot both look after them, and which one a request meets is chance."""
    monkeypatch.setenv("CONSILIUM_ENGINE", "vllm")

    assert run(["serve", "--workers", "2", "--port", "0"]) == 2
    assert "CONSILIUM_WORKERS=1" in capsys.readouterr().err


def test_a_port_in_use_is_told_with_several_processes_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Also where the other shares its port with whoever asks the kernel for that."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]

        assert run(["serve", "--workers", "2", "--port", str(port)]) == 1

    assert f"127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
