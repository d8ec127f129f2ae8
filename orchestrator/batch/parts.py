"""What every batch is run with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domain.batch import Batch
from orchestrator.batch.ledger import OnLines, uncounted
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.line import Lines
from orchestrator.batch.ports import BatchFiles, BatchStore, Fleet, OutputLine, Shape
from orchestrator.batch.rights import LineRights, public_rights
from orchestrator.batch.work import WireError
from orchestrator.ports import Directory, Workers


@dataclass(frozen=True, slots=True)
class EngineParts:
    """Shared by all batches of a process; holds nothing of any."""

    store: BatchStore
    files: BatchFiles
    fleet: Fleet
    directory: Directory
    lines: Lines
    workers: Workers
    shapes: Mapping[str, Shape]
    """By endpoint."""
    wire_error: WireError
    output_line: OutputLine
    limits: BatchLimits = BatchLimits()
    rights_of: Callable[[Batch], LineRights] = public_rights
    on_lines: OnLines = uncounted
    """Hears of lines that are over, once they are durable."""
