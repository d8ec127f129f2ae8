"""What learning from feedback needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from domain.feedback import Feedback


class FeedbackLog(Protocol):
    """The events, durable and in one order for all processes. Raises ``StorageError`` while the database cannot be reached."""

    async def add(self, event: Feedback) -> Feedback:
        """Keep it; returned with its place in the log. One that is there already under its id, with the same ``given`` and trace, is
        returned as it is. Raises ``Conflict`` where that differs, or when the trace has too much feedback."""
        ...

    async def get(self, feedback_id: str) -> Feedback:
        """Raises ``NotFound``."""
        ...

    async def roll_back(self, feedback_id: str) -> Feedback:
        """It counts for nothing from now on. Doing it twice changes nothing. Raises ``NotFound``."""
        ...

    async def version(self) -> int:
        """Grows with every event and every rollback."""
        ...

    async def newest(self, limit: int) -> tuple[int, Sequence[Feedback]]:
        """The version, and the last *limit* events that count, oldest first."""
        ...

    async def since(self, version: int) -> tuple[int, Sequence[Feedback]]:
        """The version, and what was added or taken back since *version*, by place in the log."""
        ...


@runtime_checkable
class OnlineLearner(Protocol):
    """A router whose model can be brought up to date with one answer at a time."""

    @property
    def name(self) -> str: ...

    @property
    def fitted(self) -> int:
        """Changes with every fit, which forgets what was learnt since the one before; 0 while there is no model."""
        ...

    async def learn(self, vector: Sequence[float], scores: Mapping[str, float]) -> bool:
        """One query (its encoder vector) and what experts scored on it. False where this model cannot learn so."""
        ...

    async def reset(self) -> None:
        """Back to what was fitted: what counts is taught again."""
        ...
