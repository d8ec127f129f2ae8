"""What was asked of ``consilium batch``, and whether it can be done at all: told before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from api.cli.failures import CommandFailed, bad_input
from domain.batch import BATCH_ENDPOINTS, BatchError, BatchOptions
from domain.nearest import did_you_mean

PIECE = 1 << 20
"""Bytes of a file that are read at once."""
_MAX_ERRORS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Job:
    """What was typed."""

    input: Path
    endpoint: str
    options: BatchOptions

    def __post_init__(self) -> None:
        """Raises ``CommandFailed`` for what no batch can be made of."""
        if not self.input.exists():
            raise bad_input(f"the file {self.input} is not there")
        if not self.input.is_file():
            raise bad_input(f"{self.input} is no regular file: a batch reads its input more than once")
        if self.endpoint not in BATCH_ENDPOINTS:
            hint = did_you_mean(self.endpoint, BATCH_ENDPOINTS, always_list=True)
            raise bad_input(f"--endpoint: there are no batches for {self.endpoint!r}; {hint}")

    def key(self) -> str:
        """Equal for the same requests with the same options: the same command, typed again."""
        digest = hashlib.sha256(json.dumps([self.endpoint, asdict(self.options)], sort_keys=True).encode())
        with self.input.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the answers go."""

    output: Path

    @property
    def errors(self) -> Path:
        """For lines that failed."""
        return self.output.with_name(f"{self.output.name}.errors.jsonl")

    def check(self, source: Path) -> None:
        """Raise ``CommandFailed`` for what would be found out when hours of work are done."""
        folder = self.output.parent
        if not folder.is_dir():
            raise bad_input(f"--output {self.output}: the folder {folder} is not there: make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise bad_input(f"--output {self.output}: nothing may be written in the folder {folder}")
        for path in (self.output, self.errors):
            if path.exists() and not path.is_file():
                raise bad_input(f"--output {self.output}: {path} is there and is no file; choose another name")
            if path.exists() and path.samefile(source):
                raise bad_input(f"--output {self.output}: {path} is the input; choose another name")


def refused(errors: tuple[BatchError, ...], *, has_run: bool = False) -> CommandFailed:
    """The command's end when its input has wrong lines, or cannot be read any more."""
    told = "; ".join(f"line {error.line}: {error.message}" if error.line else error.message for error in errors[:_MAX_ERRORS_SHOWN])
    more = f"; and {len(errors) - _MAX_ERRORS_SHOWN} more" if len(errors) > _MAX_ERRORS_SHOWN else ""
    return bad_input(f"{'the batch has failed' if has_run else 'nothing was run'}: {told}{more}")
