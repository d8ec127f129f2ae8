"""Every bound of the batch engine, by name, with unit and reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.batch.validation import InputLimits


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch."""

    input: InputLimits = field(default_factory=InputLimits)
    chunk_lines: int = 256
    """Lines that are read, routed or finished together: what is in memory of a batch at once, beside 150 bytes a line."""
    route_at_once: int = 64
    """Lines that are routed at the same time, so that the encoder has a batch to fill."""
    max_bucket_calls: int = 256
    """Calls of one expert that run at the same time at most, whatever its card allows."""
    max_attempts: int = 3
    """Times that a call is made when it fails in a way that may pass while its expert answers others; the workers' own quick retries
    lie within one."""
    max_outage_s: float = 600.0
    """How long an expert that answers nobody is tried again; then what is left of its bucket has failed. Longer than a restart of a
    server, a circuit's longest cool-down or a provider's minute."""
    max_failed_loads: int = 6
    """Loads of one server that fail in a way that may pass; then its experts' calls have failed."""
    first_pause_s: float = 1.0
    """Before the second round. Doubled each time."""
    max_pause_s: float = 30.0
    """Longest pause between rounds; a circuit's cool-down is about as long."""
    load_timeout_s: float = 900.0
    """Longest wait for a server, other batches and requests before it, failed loads and the pauses after them included. A large
    model takes minutes from a cold disk."""
    max_unwritten: int = 1024
    """Ended calls and lines that are not durable yet; beyond it no further call ends."""
    write_every_s: float = 0.5
    """Longest that something ended waits for others to be written with it. A kill costs at most the calls of that time;
    more commits take processor time from the servers beside them."""
    storage_patience_s: float = 300.0
    """How long a database that is away is tried again before the batch is given up, to be taken on later by whoever can."""
    lease_s: float = 60.0
    """A batch whose process was killed is taken on by another after so long."""
    watch_s: float = 1.0
    """How often a running batch is looked at: whether somebody has cancelled it."""
    last_write_s: float = 5.0
    """Longest that a batch which is stopped may take to write what has ended; what is not written is done again."""
    poll_s: float = 5.0
    """How often a process looks for batches that others have made or left."""
    max_breaks: int = 3
    """Times that a process tries a batch which breaks by a fault of the service's own; then the batch has failed."""
    first_rest_s: float = 5.0
    """How long a batch that broke off rests while others have their turn. Doubled each time."""
    max_rest_s: float = 60.0
    """Longest rest: whoever has made room on a disk should not wait much longer for the effect."""
    max_batches: int = 1
    """Batches that one process works on at once. A second one would evict what the first has loaded."""
