"""One immutable picture of everything that routing needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.experts import ExpertCard, ExpertRole
from domain.keys import ApiKey
from domain.skills import AggregatorProfile, SkillProfile
from domain.strategy import Strategy


@dataclass(frozen=True, slots=True)
class RegistrySnapshot:
    """What the registry held at one moment. Replaced as a whole when anything changes; never mutated."""

    version: int = 0
    """Grows with every change of experts, strategies, skills, profiles or labelled questions."""
    questions_version: int = 0
    """Grows with every change of the labelled questions, so that the index is rebuilt only then."""
    experts: Mapping[str, ExpertCard] = field(default_factory=dict)
    strategies: Mapping[str, Strategy] = field(default_factory=dict)
    skills: Mapping[str, str] = field(default_factory=dict)
    """Skill name to description; every skill that a profile or labelled question uses is in it."""
    profiles: Mapping[str, SkillProfile] = field(default_factory=dict)
    aggregator_profiles: Mapping[str, AggregatorProfile] = field(default_factory=dict)
    keys: Mapping[str, ApiKey] = field(default_factory=dict, repr=False)
    """Stored API keys by id, revoked ones too."""
    aggregators: tuple[ExpertCard, ...] = field(init=False, repr=False, compare=False)
    """Experts that may read candidates: who was measured at it, and whose card gives them that role."""

    def __post_init__(self) -> None:
        may_read = (card for card in self.experts.values() if card.id in self.aggregator_profiles or ExpertRole.AGGREGATOR in card.roles)
        object.__setattr__(self, "aggregators", tuple(may_read))  # once: every fused request asks, and there may be a thousand experts
