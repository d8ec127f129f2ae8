"""How the command behaves before it has done anything: usage errors, help, start-up time, its reference page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api.cli.main import run
from api.cli.reference import reference
from domain.errors import Conflict, InvalidRequest, NotFound, StorageError

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "fastapi", "sqlalchemy", "pydantic", "httpx", "rich", "numpy", "faiss", "litellm", "uvicorn")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--port", "70000"], "--port"),
        (["expert"], "experts"),
        (["experts", "lst"], "list"),
        (["ask"], "QUESTION"),
        (["ask", "hi", "--k", "none"], "--k"),
        (["ask", "hi", "--k", "0"], "--k"),
        (["route", "hi", "--boost", "atlas"], "must be an expert's id and a number"),
        (["route", "hi", "--boost", "atlas=much"], "must be an expert's id and a number"),
        (["ask", "hi", "--router-options", "{"], "--router-options is no JSON"),
        (["ask", "hi", "--router-options", "[]"], "must be a JSON object"),
        (["ask", "hi", "--url", "localhost:8080"], "--url"),
        (["ask", "hi", "--no-such"], "--no-such"),
        (["experts", "apply"], "--file"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names what is wrong or what was probably meant; nothing is printed on stdout."""
    code = run(arguments)

    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


@pytest.mark.parametrize("arguments", [[], ["experts"], ["profile"]])
def test_a_group_alone_shows_its_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = run(arguments)

    assert code == 2
    assert "Commands:" in capsys.readouterr().err


def test_help_and_version_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "experts" in capsys.readouterr().out
    assert run(["version"]) == 0
    assert capsys.readouterr().out.startswith("consilium ")
    assert run(["version", "--json"]) == 0
    assert '"version"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("no such field"), 2),
        (NotFound("no such thing"), 2),
        (Conflict("it exists"), 1),
        (StorageError("the disk is full"), 1),
        (OSError(28, "No space left on device", "out.yaml"), 1),
    ],
)
def test_what_a_command_raises_becomes_a_line_and_a_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of ours and of the system end a command without a stack trace."""

    def failing() -> dict[str, object]:
        raise error

    monkeypatch.setattr("experts_registry.manifest.json_schema", failing)

    assert run(["experts", "schema"]) == code
    assert capsys.readouterr().err == f"error: {'out.yaml: No space left on device' if isinstance(error, OSError) else error}\n"


def test_an_unexpected_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours keeps its stack trace: whoever reports it needs it."""

    def failing() -> dict[str, object]:
        raise ZeroDivisionError

    monkeypatch.setattr("experts_registry.manifest.json_schema", failing)

    with pytest.raises(ZeroDivisionError):
        run(["experts", "schema"])


def test_the_reference_is_current() -> None:
    """``docs/cli.md`` is what the commands say of themselves; ``python -m api.cli.reference > docs/cli.md`` writes it."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()


def test_starting_imports_nothing_heavy() -> None:
    """The command's module loads in no time because it loads nothing that only some commands need."""
    code = f"import sys, api.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert loaded.stdout.strip() == "[]"


def test_it_runs_as_a_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: consilium")


def test_a_reader_that_leaves_early_is_no_failure_of_ours() -> None:
    """``consilium experts schema | head -c 1`` prints no stack trace."""
    with subprocess.Popen(
        [sys.executable, "-m", "api.cli.main", "experts", "schema"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()

    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors
