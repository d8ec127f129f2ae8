"""The end of a log."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.vllm.logs import MAX_LINE_CHARS, tail
from workers.vllm.shim import Log

LINES = st.lists(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=400), max_size=40)


@given(LINES, st.integers(0, 50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_the_tail_is_the_last_lines_over_both_files(tmp_path: Path, lines: list[str], num_lines: int) -> None:
    cut = len(lines) // 2
    path = tmp_path / "server.log"
    path.with_name("server.log.1").write_text("".join(f"{line}\n" for line in lines[:cut]), encoding="utf-8")
    path.write_text("".join(f"{line}\n" for line in lines[cut:]), encoding="utf-8")

    assert tail(path, num_lines) == (lines[-num_lines:] if num_lines else [])


def test_colours_progress_bars_and_broken_bytes_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(b"\x1b[1;31mERROR\x1b[0m red\n\n 10%|#\r100%|####\r\n\xff\xfe\n" + b"x" * 5000)

    assert tail(path, 10) == ["ERROR red", "100%|####", "\ufffd\ufffd", "x" * MAX_LINE_CHARS]
    assert tail(tmp_path / "none.log", 10) == []


@given(st.lists(st.integers(1, 300), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_log_stays_within_two_files_and_loses_only_the_oldest(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("log") / "server.log"
    written = b""
    with closing(Log(str(path), 500)) as log:
        for number, size in enumerate(sizes):
            data = bytes([65 + number % 26]) * size
            written += data
            log.write(data)

    kept = b"".join(file.read_bytes() for file in (path.with_name("server.log.1"), path) if file.exists())
    assert written.endswith(kept)
    assert len(kept) >= min(len(written), 200)
    assert all(file.stat().st_size <= 500 for file in path.parent.iterdir())


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    with closing(Log(str(tmp_path / "no such folder" / "server.log"), 500)) as log:
        log.write(b"lost\n")
        (tmp_path / "no such folder").mkdir()
        log.write(b"kept\n")

    assert tail(tmp_path / "no such folder" / "server.log", 10) == ["kept"]
