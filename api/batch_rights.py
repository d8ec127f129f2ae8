"""The rights of a batch's lines, looked up when each is asked: a key that is revoked meanwhile ends its batches' calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from api.auth import ADMIN
from api.key_parts import KeyParts
from domain.batch import Batch, BatchRunner
from domain.chat import ChatRequest
from domain.errors import Unauthenticated
from domain.experts import ExpertCard
from domain.keys import ApiKey
from domain.registry import RegistrySnapshot
from orchestrator.batch.rights import FixedRights, LineRights, every_right

SnapshotNow = Callable[[], RegistrySnapshot]


def rights_of(keys: KeyParts, snapshot: SnapshotNow, *, embedding_model: str) -> Callable[[Batch], LineRights]:
    """For ``EngineParts``."""

    def of(batch: Batch) -> LineRights:
        if batch.runner is BatchRunner.COMMAND or batch.key_id == ADMIN:
            return every_right()
        return FixedRights() if batch.key_id is None else KeyRights(batch.key_id, keys, snapshot, embedding_model)

    return of


class KeyRights:
    """Satisfies ``orchestrator.batch.rights.LineRights`` for one stored key."""

    def __init__(self, key_id: str, keys: KeyParts, snapshot: SnapshotNow, embedding_model: str) -> None:
        self._key_id, self._keys, self._snapshot, self._embedding_model = key_id, keys, snapshot, embedding_model

    @property
    def is_spent(self) -> bool:
        key = self._snapshot().keys.get(self._key_id)
        return key is not None and self._keys.gate.is_spent(key)

    def require(self) -> None:
        self._key()

    def asked(self, request: ChatRequest) -> ChatRequest:
        key = self._key()
        return self._keys.gate.unhurried(key, request, self._cards())

    def counted(self, answer: Mapping[str, Any]) -> None:
        num_tokens = answer.get("usage", {}).get("prompt_tokens", 0)
        self._keys.usage.count(self._key_id, self._embedding_model, num_tokens, started_at=time.time())

    def _cards(self) -> Mapping[str, ExpertCard]:
        return self._snapshot().experts

    def _key(self) -> ApiKey:
        key = self._snapshot().keys.get(self._key_id)
        state = "gone" if key is None else key.state(time.time())
        if key is None or state != "active":
            raise Unauthenticated(f"the API key {self._key_id!r}, with whose rights this batch runs, is {state}")
        return key
