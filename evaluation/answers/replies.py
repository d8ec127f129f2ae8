"""One answer as it came back, and the file that keeps answers between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an expert that an answer took."""

    expert: str
    tokens: int = 0
    """Prompt and answer."""
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What one question brought."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    """The experts' calls, those of an aggregator included."""
    latency_ms: float = 0.0
    expert: str | None = None
    """Who wrote it, when it was one expert alone."""
    reasoning: str = ""
    logprob: float | None = None
    """Mean log-probability of its tokens, where the expert tells it."""
    error: str | None = None
    """Why there is none."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Reply:
        """Raises ``TypeError``, ``KeyError`` or ``ValueError`` for what never was one."""
        known = {field_.name for field_ in fields(cls)}
        values = {name: value for name, value in given.items() if name in known}
        return cls(**{**values, "calls": tuple(Call(**call) for call in given["calls"])})


@dataclass(slots=True)
class ReplyLog:
    """Answers under keys, in a JSONL file that only grows while it is open: a kill loses at most the line that is being written.

    A file over *max_bytes* loses its older half when it is opened. Failures are not kept: they are asked again.
    """

    path: Path | None
    max_bytes: int = 500_000_000
    _known: dict[str, Reply] = field(default_factory=dict)

    def open(self) -> None:
        """Read what there is. Lines that cannot be read are skipped."""
        if self.path is None:
            return
        with suppress(OSError):
            self._shrink(self.path)
            with self.path.open("rb") as file:
                for line in file:
                    with suppress(ValueError, TypeError, KeyError):
                        row = json.loads(line)
                        self._known[row["key"]] = Reply.from_json(row["reply"])

    def get(self, key: str) -> Reply | None:
        return self._known.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep *reply*, at once and on the disk. A disk that is full costs the next run its time, not this one its result."""
        if reply.error is not None:
            return
        self._known[key] = reply
        if self.path is None:
            return
        line = json.dumps({"key": key, "reply": reply.as_json()}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                # What was killed in the middle of a line must not take this one with it.
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    line = b"\n" + line
                file.write(line)

    def _shrink(self, path: Path) -> None:
        size = path.stat().st_size
        if size <= self.max_bytes:
            return
        part = path.with_suffix(f".{os.getpid()}.part")
        with path.open("rb") as old, part.open("wb") as new:
            old.seek(size - self.max_bytes // 2)
            old.readline()
            for line in old:
                new.write(line)
        part.replace(path)
