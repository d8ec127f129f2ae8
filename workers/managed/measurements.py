"""What was measured of servers and experts, kept in a small file from one run of the service to the next."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from workers.managed.placement import Seen
from workers.residency.measures import NEWEST_WEIGHT

log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Seconds that one more call of an expert adds to a bucket, as candidate and as aggregator; None when it was not seen yet."""

    call_s: float | None = None
    aggregation_s: float | None = None


class Measurements:
    """Lives on one event loop; ``read`` and ``write`` touch the disk and belong into a thread."""

    def __init__(self, path: Path, *, max_entries: int) -> None:
        self._path = path
        self._max_entries = max_entries
        self.servers: dict[str, Seen] = {}
        """By ``placement.launch_key``; the newest last."""
        self.experts: dict[str, CallTimes] = {}

    def read(self) -> None:
        """Take up what an earlier run has left. A file that cannot be read is as good as none."""
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            servers = {str(key): _read(Seen, row) for key, row in told["servers"].items()}
            experts = {str(key): _read(CallTimes, row) for key, row in told["experts"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what was measured of servers before cannot be read from %s (%s): it is measured anew", self._path, error)
            return
        self.servers, self.experts = {**servers, **self.servers}, {**experts, **self.experts}

    def saw(self, key: str, seen: Seen) -> bool:
        """Keep *seen*; whether that is news."""
        if self.servers.get(key, Seen()) == seen:
            return False
        _put(self.servers, key, seen, self._max_entries)
        return True

    def called(self, expert_id: str, call_s: float, *, aggregation: bool) -> None:
        """One more bucket of the expert took *call_s* a call: a moving average."""
        before = self.experts.get(expert_id, CallTimes())
        known = before.aggregation_s if aggregation else before.call_s
        moved = call_s if known is None else known + NEWEST_WEIGHT * (call_s - known)
        after = CallTimes(before.call_s, moved) if aggregation else CallTimes(moved, before.aggregation_s)
        _put(self.experts, expert_id, after, self._max_entries)

    def document(self) -> str:
        """All of it, as the file has it."""
        rows = {"servers": _rows(self.servers), "experts": _rows(self.experts)}
        return json.dumps(rows, indent=1)

    def write(self, document: str) -> None:
        """Replace the file as a whole. A disk that is full costs the memory of this run, not the run."""
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(document, encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            log.warning("what was measured of servers cannot be kept in %s: %s", self._path, error)
            with contextlib.suppress(OSError):
                new.unlink()


def _rows(values: Mapping[str, Seen] | Mapping[str, CallTimes]) -> dict[str, dict[str, float]]:
    return {key: {name: value for name, value in asdict(row).items() if value is not None} for key, row in values.items()}


def _read(kind: type[ValueT], row: Mapping[str, Any]) -> ValueT:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _number(value) for name, value in row.items() if name in known})


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no measurement")
    return float(value)


def _put(kept: dict[str, ValueT], key: str, value: ValueT, max_entries: int) -> None:
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > max_entries:
        del kept[next(iter(kept))]
