"""Following a measurement."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from api.cli.client import ApiClient
from api.cli.measuring import follow


def told(num_done: int, num_correct: int, num_failed: int = 0) -> dict[str, Any]:
    return {"expert_id": "numerals", "num_done": num_done, "num_total": 4, "num_correct": num_correct, "num_failed": num_failed}


def client_of(*runs: dict[str, Any], is_local: bool = False) -> ApiClient:
    """A client whose service gives *runs* one after another, the last one for ever."""
    left = list(runs)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=left.pop(0) if len(left) > 1 else left[0]))
    return ApiClient(httpx.AsyncClient(transport=transport, base_url="http://test"), where="test", is_local=is_local)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.measuring._LOOK_EVERY_S", 0)


async def test_it_ends_with_the_run_and_shows_the_final_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """The bars are on stderr, one per expert, and end where the run ended."""
    final = {
        "status": "finished",
        "summary": [{"expert": "numerals", "overall": {"num_answered": 3, "num_correct": 3}, "num_failed": 1}],
    }

    run = await follow(client_of({"status": "running", "progress": [told(1, 0)]}, final), "/runs/r1", quiet=False)

    out, err = capsys.readouterr()
    assert run == final
    assert out == ""
    assert "4/4" in err
    assert "100 % right, 1 failed" in err


async def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    await follow(client_of({"status": "running", "progress": [told(1, 0)]}, {"status": "open"}), "/runs/r1", quiet=True)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "is_local", "said"),
    [
        ("profile-runs", True, "'consilium profile run --resume r1' goes on"),
        ("profile-runs", False, "goes on at test; 'consilium profile rollback r1'"),
        ("aggregator-runs", True, "the same command begins again"),
        ("aggregator-runs", False, "goes on at test; its end replaces what was measured before"),
    ],
)
async def test_interrupted_it_says_how_to_go_on(kind: str, is_local: bool, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run in this process has stopped, and one of experts can be resumed; one of a service elsewhere goes on."""
    client = client_of({"status": "running", "progress": []}, is_local=is_local)
    task = asyncio.create_task(follow(client, f"/admin/api/{kind}/r1", quiet=True))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert said in capsys.readouterr().err
