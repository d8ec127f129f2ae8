"""The environment that managed servers inherit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from domain.experts import ExpertCard

_OF_THE_HUB = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
"""A model may have to be fetched with them, whatever else they are for."""


class Environ(Mapping[str, str]):
    """The service's, without the variables that experts' cards name as their keys: they are other providers', whatever they are called."""

    def __init__(self, inherited: Mapping[str, str] = os.environ) -> None:
        self._inherited = inherited
        self._withheld: frozenset[str] = frozenset()

    def withhold(self, cards: Iterable[ExpertCard]) -> None:
        """These are the experts now. Servers that run already keep what they have."""
        references = (card.api_key.partition(":") for card in cards if card.api_key)
        self._withheld = frozenset(name for scheme, _, name in references if scheme == "env") - _OF_THE_HUB

    def __getitem__(self, name: str) -> str:
        if name in self._withheld:
            raise KeyError(name)
        return self._inherited[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._inherited if name not in self._withheld)

    def __len__(self) -> int:
        return sum(1 for _ in self)
