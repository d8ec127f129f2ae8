"""With whose rights a batch runs: its creator's key's, as they are when a line is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from domain.access import EVERYTHING, PUBLIC, Access
from domain.batch import Batch
from domain.chat import ChatRequest


class LineRights(Protocol):
    """Of one batch's lines."""

    @property
    def is_spent(self) -> bool:
        """Whether the key's budget leaves nothing for a further call."""
        ...

    def require(self) -> None:
        """Raise ``RequestError`` when the key opens nothing any more."""
        ...

    def asked(self, request: ChatRequest) -> ChatRequest:
        """*request* as the key's. Raises like ``require``."""
        ...

    def counted(self, answer: Mapping[str, Any]) -> None:
        """Account for an answer of an endpoint that calls no expert."""
        ...


class FixedRights:
    """Without a stored key: nothing is bounded and nothing accounted for."""

    def __init__(self, access: Access = PUBLIC) -> None:
        self._access = access
        self.is_spent = False

    def require(self) -> None:
        """Always right."""

    def asked(self, request: ChatRequest) -> ChatRequest:
        return replace(request, access=self._access)

    def counted(self, answer: Mapping[str, Any]) -> None:
        """Nobody asks."""


def public_rights(_batch: Batch) -> LineRights:
    """Those of who has no key."""
    return FixedRights()


def every_right() -> LineRights:
    """Those of the admin key, and of commands on the service's own machine."""
    return FixedRights(EVERYTHING)
