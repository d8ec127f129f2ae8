"""What memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.managed import machine


def test_a_container_s_limit_counts_where_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"max": "max\n", "low": str(512 * 2**20), "huge": str(2**63)}
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    found = {}
    for name in (*limits, "missing"):
        monkeypatch.setattr(machine, "_CGROUP_LIMITS", (tmp_path / name,))
        found[name] = machine.machine_memory_mb()

    assert found["low"] == 512
    assert found["max"] == found["huge"] == found["missing"] > 512


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 81559; echo 40960", 40960.0), ("echo '[N/A]'", None), ("exit 9", None), ("true", None)],
)
def test_the_smallest_gpu_counts_and_what_is_not_told_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: float | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(program))

    assert machine.gpu_memory_mb() == expected


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)

    assert machine.gpu_memory_mb() is None
