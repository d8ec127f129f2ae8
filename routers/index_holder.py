"""The index that routing uses now, and how it follows the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domain.errors import NotReady, StorageError
from domain.registry import RegistrySnapshot
from domain.skills import LabelledQuestion
from routers.declared import DeclaredSkills, read_declarations
from routers.question_index import Neighbour, QuestionIndex, TextEncoder
from routers.skill_space import Floats

_log = logging.getLogger(__name__)

LoadQuestions = Callable[[], Awaitable[Sequence[LabelledQuestion]]]
LoadVectors = Callable[[str], Awaitable[Mapping[str, bytes]]]
SaveVectors = Callable[[str, Mapping[str, bytes]], Awaitable[None]]


@dataclass(frozen=True)
class RoutingIndex:
    """Everything that a query is compared with. Immutable."""

    questions: QuestionIndex
    declared: DeclaredSkills

    @cached_property
    def skills(self) -> tuple[str, ...]:
        """The skills that have labelled questions, then those that are only declared."""
        return self.questions.skills + self.declared.skills

    def compare(self, vectors: Floats) -> tuple[Floats, list[list[Neighbour]]]:
        """How similar encoder vectors (n, d) are to each of ``skills`` (n, skills), and the labelled questions nearest to each."""
        projected = self.questions.project(vectors)
        similarities, neighbours = self.questions.compare(projected)
        if self.declared.skills:
            similarities = np.concatenate([similarities, self.declared.similarities(projected)], axis=1)
        return similarities, neighbours


class IndexHolder:
    """Holds the current index. ``refresh`` replaces it as a whole; routing never waits for that."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._lock = asyncio.Lock()
        self._current: RoutingIndex | None = None
        self._built_for: tuple[int, str] | None = None
        self._declared_for: object = None
        self._newest_version = -1
        self._followed = asyncio.Event()

    @property
    def current(self) -> RoutingIndex | None:
        return self._current

    def index(self) -> RoutingIndex:
        """The current index. Raises ``NotReady`` before the first one is there."""
        if self._current is None:
            raise NotReady("the index of labelled questions is still being built")
        return self._current

    async def refresh(
        self, snapshot: RegistrySnapshot, load_questions: LoadQuestions, load_vectors: LoadVectors, save_vectors: SaveVectors
    ) -> bool:
        """Follow *snapshot*; True when the index changed.

        Questions are read and encoded only when they changed, declarations only when a card's did. A snapshot older than
        one seen before is ignored. On failure the index in use stays and the error is raised.
        """
        async with self._lock:
            if snapshot.version < self._newest_version:
                return False
            questions, changed = await self._questions(snapshot, load_questions, load_vectors, save_vectors)
            declared_for = _declarations(snapshot)
            if changed or declared_for != self._declared_for or self._current is None:
                declared = await read_declarations(self._encoder, questions, snapshot.experts.values(), snapshot.skills)
                self._current = RoutingIndex(questions, declared)
                self._built_for, self._declared_for = (snapshot.questions_version, self._encoder.encoder_id), declared_for
                changed = True
            self._newest_version = snapshot.version
            self._followed.set()  # whoever waits looks again, and waits for the next one
            self._followed = asyncio.Event()
            return changed

    async def follows(self, version: int) -> None:
        """Return when the index is that of the registry's *version* or a later one. Wants a limit of the caller's."""
        while self._newest_version < version:
            await self._followed.wait()

    async def _questions(
        self, snapshot: RegistrySnapshot, load_questions: LoadQuestions, load_vectors: LoadVectors, save_vectors: SaveVectors
    ) -> tuple[QuestionIndex, bool]:
        encoder_id = self._encoder.encoder_id
        if self._current is not None and self._built_for == (snapshot.questions_version, encoder_id):
            return self._current.questions, False
        questions, known = await load_questions(), await load_vectors(encoder_id)
        index, made = await QuestionIndex.build(self._encoder, questions, snapshot.skills, known)
        if made:
            try:
                await save_vectors(encoder_id, made)
            except StorageError as exc:
                # The vectors can be made again; a full disk must not stop routing.
                _log.warning("the vectors of %d labelled questions were not stored: %s", len(made), exc)
        return index, True


def _declarations(snapshot: RegistrySnapshot) -> object:
    """What the declared part of the index depends on, comparable."""
    cards = tuple((card.id, card.skills, card.exemplars, card.roles, card.enabled) for card in snapshot.experts.values())
    return cards, tuple(sorted(snapshot.skills.items()))
