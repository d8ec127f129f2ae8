"""What cards name as their keys is nothing to a managed server."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.experts import Backend, ExpertCard
from tests.fakes.fleets import fleet_in
from workers.managed.environ import Environ
from workers.vllm.command import ServerLaunch, VllmProgram, environment

LAUNCH = ServerLaunch("base", "/weights/base", "base")
PROGRAM = VllmProgram.serve()


def remote(expert_id: str, api_key: str | None) -> ExpertCard:
    return ExpertCard(expert_id, Backend.OPENAI, "m", base_url="http://127.0.0.1:1/v1", api_key=api_key)


def test_a_key_is_withheld_whatever_it_is_called() -> None:
    environ = Environ({"PROVIDER": "s", "OTHER": "o", "HF_TOKEN": "t"})
    environ.withhold([remote("a", "env:PROVIDER"), remote("b", None), remote("c", "env:HF_TOKEN"), remote("d", "env:NOT_SET")])

    assert dict(environ) == {"OTHER": "o", "HF_TOKEN": "t"}
    assert len(environ) == 2
    assert "PROVIDER" not in environment(LAUNCH, PROGRAM, environ)
    environ.withhold([])
    assert environment(LAUNCH, PROGRAM, environ)["PROVIDER"] == "s"


async def test_a_fleet_withholds_the_keys_of_every_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of experts that it does not run itself."""
    monkeypatch.setenv("PROVIDER", "s")
    fleet = fleet_in(tmp_path)
    try:
        await fleet.update([remote("a", "env:PROVIDER")])
        assert "PROVIDER" not in environment(LAUNCH, PROGRAM, fleet._supervisor._premises.inherited)
    finally:
        await fleet.close()
