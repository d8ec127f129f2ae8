"""Every bound of the fleet: its name, its unit and why it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """Bounds of all managed servers of one service together."""

    retire_timeout_s: float = 600.0
    """How long a server that is outdated or no longer declared may go on with what it serves before that is told in the log and
    waited for again: no request has a longer deadline."""
    retry_s: float = 5.0
    """Pause before another attempt to retire a server, or to manage a folder that another process still manages."""
    place_wait_s: float = 10.0
    """How long a call waits for a card that is newer than the fleet's picture to be placed: files are read for that, nothing more."""
    confirm_s: float = 30.0
    """How long a call whose connection broke waits for the news that its server is down, before it is tried again. What is left
    of a server that died is ended first, which takes seconds."""
    probe_s: float = 2.0
    """Time for a server to show that it still answers, after a call's connection broke."""
    progress_s: float = 5.0
    """Pause between two signs of progress of one that waits for a load: under the idle limits of common proxies."""
    close_timeout_s: float = 5.0
    """How long what is under way may take to be cancelled, before the servers are stopped all the same."""
    max_measured: int = 1000
    """Servers and experts whose times are kept; the ones measured longest ago go. A kept one takes a hundred bytes or two."""
    max_log_lines: int = 10_000
    """Lines of a server's log that are told at once."""


DEFAULT_CALL_S = 0.02
"""Seconds that one more call adds to many at once, until it was measured: fifty answers a second. A tiny model on two processors gives
a hundred and more, a large one with long answers less."""
