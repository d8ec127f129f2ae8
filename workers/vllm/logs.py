"""The last lines of a server's log."""

from __future__ import annotations

import os
import re
from pathlib import Path

MAX_LINE_CHARS = 2000
"""Longer lines are cut: a configuration that vLLM prints in one line fills a screen."""
_BYTES_A_LINE = 512
"""Read for each line asked for, at first; more where that was too little."""
# Colours and cursor movements, and what moves the cursor back to the beginning of the line (progress bars).
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def tail(path: Path, num_lines: int) -> list[str]:
    """The last lines of the log at *path* and of the file before it (``<path>.1``), oldest first, without colours.

    Of a line that was written over (a progress bar) only the last state. Nothing is raised for a log that is not there.
    """
    lines = _last_lines(path, num_lines)
    if len(lines) < num_lines:
        lines = _last_lines(path.with_name(f"{path.name}.1"), num_lines - len(lines)) + lines
    return lines


def _last_lines(path: Path, num_lines: int) -> list[str]:
    if num_lines < 1:
        return []
    try:
        with path.open("rb") as file:
            size, wanted = file.seek(0, os.SEEK_END), _BYTES_A_LINE * num_lines
            while True:
                start = max(0, size - wanted)
                file.seek(start)
                data = file.read(size - start)
                if start == 0 or data.count(b"\n") > num_lines:
                    break
                wanted *= 4
    except OSError:
        return []
    return [_readable(line) for line in data.split(b"\n") if line.strip()][-num_lines:]


def _readable(line: bytes) -> str:
    text = _ESCAPES.sub("", line.decode("utf-8", "replace")).rstrip()
    return text.rsplit("\r", 1)[-1][:MAX_LINE_CHARS]
