"""What was measured is there again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.managed.measurements import CallTimes, Measurements
from workers.managed.placement import Seen


def of(folder: Path, max_entries: int = 10) -> Measurements:
    made = Measurements(folder / "vllm" / "measured.json", max_entries=max_entries)
    made.read()
    return made


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    first = of(tmp_path)
    assert first.saw("key", Seen(load_s=30, memory_mb=2500))
    assert not first.saw("key", Seen(load_s=30, memory_mb=2500)), "no news"
    first.called("a", 0.5, aggregation=False)
    first.called("a", 2.0, aggregation=True)
    first.write(first.document())
    again = of(tmp_path)

    assert again.servers == {"key": Seen(load_s=30, memory_mb=2500)}
    assert again.experts == {"a": CallTimes(0.5, 2.0)}


def test_call_times_move_towards_the_newest(tmp_path: Path) -> None:
    measured = of(tmp_path)
    for seconds in (1.0, 2.0):
        measured.called("a", seconds, aggregation=False)

    assert measured.experts["a"].call_s == pytest.approx(1.3)
    assert measured.experts["a"].aggregation_s is None


@pytest.mark.parametrize("text", ["", "[]", '{"servers": {}}', '{"servers": {"k": {"load_s": "x"}}, "experts": {}}', '{"servers": 3}'])
def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "vllm" / "measured.json"
    file.parent.mkdir()
    file.write_text(text)

    assert of(tmp_path).servers == {}
    assert "measured anew" in caplog.text


def test_what_was_measured_longest_ago_goes(tmp_path: Path) -> None:
    measured = of(tmp_path, max_entries=2)
    for key in ("a", "b", "a", "c"):
        measured.saw(key, Seen(load_s=float(len(measured.servers) + 1)))

    assert list(measured.servers) == ["a", "c"]


def test_a_disk_that_takes_nothing_costs_no_more_than_the_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    measured = of(tmp_path)
    (tmp_path / "vllm").write_text("a file where the folder should be")

    measured.write(measured.document())

    assert "cannot be kept" in caplog.text
