"""What learned routers are fitted on: the outcomes that count, and what the encoder makes of their questions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from domain.errors import StorageError
from domain.outcomes import OutcomeTable
from routers.background import computed
from routers.learned.base import Features, Floats, score_matrix
from routers.question_index import TextEncoder

_log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Questions that are encoded in one go; between two of them others have their turn, and progress is told."""

_DIGEST_BYTES = 16
Describe = Callable[[tuple[str, ...], Floats], Features]
"""From texts and their encoder vectors (N, D) to what models look at; the same for fitting and for serving."""


class OutcomeSource(Protocol):
    """Where outcomes and vectors are kept."""

    async def outcome_table(self, expert_ids: Sequence[str]) -> OutcomeTable:
        """What counts of *expert_ids*, by question."""
        ...

    async def outcomes_version(self) -> object:
        """Equal as long as the same outcomes count."""
        ...

    async def vectors(self, encoder_id: str) -> Mapping[str, bytes]:
        """Question id to the vector of that encoder: float32, little-endian."""
        ...

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes], *, questions_version: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Row by row the same questions."""

    features: Features
    table: OutcomeTable


Columns = Mapping[str, bytes]
"""By expert: a digest of what was measured of it, and of the questions that it was measured on."""


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What has changed between two tables, expert by expert."""

    gone: tuple[str, ...] = ()
    came: tuple[str, ...] = ()
    """New ones, and those that were measured anew."""

    @classmethod
    def between(cls, before: Columns, now: Columns) -> PoolChange:
        gone = tuple(sorted(before.keys() - now.keys()))
        return cls(gone, tuple(sorted(expert_id for expert_id, column in now.items() if before.get(expert_id) != column)))

    def __bool__(self) -> bool:
        return bool(self.gone or self.came)


def columns_of_table(table: OutcomeTable) -> Columns:
    """Equal for an expert as long as it was measured on the same questions (text, category and skills) with the same scores."""
    scores = score_matrix(table)
    measured = ~np.isnan(scores)
    rows = np.frombuffer(b"".join(_digest_of_row(table, row) for row in range(len(table))), np.uint8).reshape(len(table), _DIGEST_BYTES)
    return {
        expert_id: hashlib.blake2b(
            rows[measured[:, column]].tobytes() + scores[measured[:, column], column].tobytes(), digest_size=_DIGEST_BYTES
        ).digest()
        for column, expert_id in enumerate(table.expert_ids)
    }


def _digest_of_row(table: OutcomeTable, row: int) -> bytes:
    labels = (
        table.question_ids[row] if table.question_ids else "",
        table.questions[row],
        (table.categories[row] if table.categories else None) or "",
        *(table.skills[row] if table.skills else ()),
    )
    return hashlib.blake2b("\0".join(labels).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


async def read_training_data(
    source: OutcomeSource,
    encoder: TextEncoder,
    describe: Describe,
    *,
    expert_ids: Sequence[str],
    questions_version: int,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingData:
    """What *source* knows of *expert_ids* now. Vectors that are stored are used, others are made and stored.

    *tell* hears how far it is, in words.
    """
    tell("reading outcomes")
    table = await source.outcome_table(expert_ids)
    known = await source.vectors(encoder.encoder_id) if len(table) else {}
    vectors, unknown = await computed(lambda: _stored(table, known, encoder.dimensions), name="read vectors")
    made: dict[str, bytes] = {}
    for start in range(0, len(unknown), _AT_ONCE):
        tell(f"encoding questions, {start} of {len(unknown)}")
        rows = unknown[start : start + _AT_ONCE]
        new = await encoder.encode([table.questions[row] for row in rows])
        vectors[rows] = new
        made |= {table.question_ids[row]: vector.astype("<f4").tobytes() for row, vector in zip(rows, new, strict=True)}
    if made:
        try:
            await source.save_vectors(encoder.encoder_id, made, questions_version=questions_version)
        except StorageError as exc:
            # The vectors can be made again; a full disk must not stop routing.
            _log.warning("the vectors of %d labelled questions were not stored: %s", len(made), exc)
    return TrainingData(await computed(lambda: describe(table.questions, vectors), name="describe questions"), table)


def _stored(table: OutcomeTable, known: Mapping[str, bytes], dimensions: int) -> tuple[Floats, list[int]]:
    """The vectors (N, D) as far as they are *known*, and the rows of those that are not, or are of another length."""
    vectors, unknown = np.zeros((len(table), dimensions), np.float32), []
    for row, question_id in enumerate(table.question_ids):
        stored = known.get(question_id, b"")
        if len(stored) == 4 * dimensions:
            vectors[row] = np.frombuffer(stored, "<f4")
        else:
            unknown.append(row)
    return vectors, unknown
