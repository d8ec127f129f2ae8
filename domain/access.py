"""What a caller may see and use of the registry."""

from __future__ import annotations

from dataclasses import dataclass

from domain.experts import ExpertCard


@dataclass(frozen=True, slots=True)
class Access:
    """A caller's rights. What is not allowed does not exist for the caller: it is neither chosen nor listed nor named."""

    labels: frozenset[str] = frozenset()
    """Access labels that the caller holds; an expert is open to who holds all of its labels."""
    experts: frozenset[str] | None = None
    """The only experts, by id; None allows every one."""
    strategies: frozenset[str] | None = None
    """The only strategies, by id; None allows every one."""
    all_labels: bool = False
    """Holds every label that there is or will be."""
    may_fit: bool = False
    """May have a router fitted with options that no strategy has. That takes memory and a processor which all requests share."""

    def sees(self, card: ExpertCard) -> bool:
        """Whether *card* exists for the caller."""
        return (self.all_labels or card.labels <= self.labels) and (self.experts is None or card.id in self.experts)

    def may_use_strategy(self, strategy_id: str) -> bool:
        """Whether the strategy exists for the caller."""
        return self.strategies is None or strategy_id in self.strategies


PUBLIC = Access()
"""Who has shown no key, or one of the settings': every expert without labels."""
EVERYTHING = Access(all_labels=True, may_fit=True)
"""The admin key's."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose files and batches somebody may see: those of one key (None: those that were made without a stored one), or all."""

    key_id: str | None = None
    of_all: bool = False

    def owns(self, key_id: str | None) -> bool:
        """Whether what belongs to *key_id* may be seen."""
        return self.of_all or self.key_id == key_id


OF_ALL = Owner(of_all=True)
"""The service's own, and the admin key's."""
