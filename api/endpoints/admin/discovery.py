"""From the models that a server lists to cards. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.experts import Backend, Capability, ExpertCard
from experts_registry.fields import RESERVED_EXPERT_IDS

_VLLM = "vllm"
_VLLM_CAN = frozenset({Capability.JSON_SCHEMA, Capability.LOGPROBS, Capability.MULTIPLE_CHOICES})
"""What vLLM does with every model. Tools need a parser that is chosen when it starts, so they are left to its steward."""
_MAX_ID = 64


class ServedModel(Protocol):
    """One model as a server lists it."""

    @property
    def id(self) -> str: ...
    @property
    def max_model_len(self) -> int | None: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def owned_by(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A card for one served model. ``state`` is ``new``, or ``known`` when an expert runs that model there already."""

    card: ExpertCard
    state: str


def found_models(models: Iterable[ServedModel], base_url: str, api_key: str | None, experts: Sequence[ExpertCard]) -> list[Found]:
    """One card per model; a new one gets an id that no expert has and that none but experts may have."""
    known = {(card.base_url.rstrip("/"), card.model): card for card in experts if card.base_url is not None}
    taken = {card.id for card in experts} | RESERVED_EXPERT_IDS
    found = []
    for model in {model.id: model for model in models}.values():  # a list that names one twice has one
        if card := known.get((base_url, model.id)):
            found.append(Found(card, "known"))
            continue
        card = _card(model, base_url, api_key, taken)
        taken.add(card.id)
        found.append(Found(card, "new"))
    return found


def _card(model: ServedModel, base_url: str, api_key: str | None, taken: set[str]) -> ExpertCard:
    default = ExpertCard(id=_free_id(model.id, taken), backend=Backend.OPENAI, model=model.id)
    kind = f"LoRA adapter on {model.parent}" if model.parent else "model"
    return ExpertCard(
        id=default.id,
        backend=Backend.OPENAI,
        model=model.id,
        description=f"{kind} served at {base_url}",
        base_url=base_url,
        api_key=api_key,
        context_length=model.max_model_len or default.context_length,
        capabilities=_VLLM_CAN if model.owned_by == _VLLM else frozenset(),
    )


def _free_id(model_id: str, taken: set[str]) -> str:
    """A short id after the model's last path part; numbered when it is taken."""
    last = model_id.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._") or "model"
    number, suffix = 1, ""
    while (free := stem[: _MAX_ID - len(suffix)] + suffix) in taken:
        number += 1
        suffix = f"-{number}"
    return free
