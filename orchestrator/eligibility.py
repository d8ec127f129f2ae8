"""Who may answer this request at all. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from domain.chat import ChatRequest, text_of
from domain.errors import ContextTooLong, InvalidRequest, NoEligibleExpert
from domain.experts import Capability, ExpertCard, ExpertRole, HealthState
from domain.registry import RegistrySnapshot

_CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Eligibility:
    """The experts that may answer, by id, and why each of the others may not."""

    experts: tuple[ExpertCard, ...]
    rejected: Mapping[str, str]


def needed_capabilities(request: ChatRequest) -> frozenset[Capability]:
    """What *request* needs beyond text in, text out."""
    params = request.params
    needed: set[Capability] = set()
    if params.get("tools") and params.get("tool_choice") != "none":
        needed.add(Capability.TOOLS)
    response_format = params.get("response_format")
    if isinstance(response_format, Mapping) and response_format.get("type") in ("json_schema", "json_object"):
        needed.add(Capability.JSON_SCHEMA)
    if params.get("logprobs"):
        needed.add(Capability.LOGPROBS)
    if (params.get("n") or 1) > 1:
        needed.add(Capability.MULTIPLE_CHOICES)
    if any(_has_image(message) for message in request.messages):
        needed.add(Capability.VISION)
    return frozenset(needed)


def _has_image(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, Sequence) and not isinstance(content, str) and any(
        isinstance(part, Mapping) and part.get("type") == "image_url" for part in content
    )  # fmt: skip


def estimated_tokens(request: ChatRequest, card: ExpertCard) -> int:
    """A low estimate of prompt plus asked-for completion: what it rejects could not have worked."""
    letters = sum(len(text_of(message)) for message in request.messages)
    wanted = request.params.get("max_completion_tokens") or request.params.get("max_tokens") or 1
    return int(letters / card.chars_per_token) + int(wanted)


def check_names(names: Sequence[str], snapshot: RegistrySnapshot, *, param: str) -> None:
    """Raise ``InvalidRequest`` for the first of *names* that is no expert."""
    for name in names:
        if name not in snapshot.experts:
            nearest = get_close_matches(name, snapshot.experts, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known are {', '.join(sorted(snapshot.experts)[:12])}"
            raise InvalidRequest(f"{param}: there is no expert {name!r}{hint}", param=param)


def eligible(request: ChatRequest, snapshot: RegistrySnapshot, health_of: Callable[[str], HealthState]) -> Eligibility:
    """The experts that may be candidates for *request*.

    Raises ``InvalidRequest`` for an unknown name in ``allow`` or ``deny``, ``ContextTooLong`` when only the length
    stands in the way, ``NoEligibleExpert`` with every reason otherwise. Experts whose labels the caller lacks are
    neither used nor named.
    """
    options = request.options
    check_names(options.allow or (), snapshot, param="consilium.allow")
    check_names(options.deny, snapshot, param="consilium.deny")
    needed = needed_capabilities(request)
    experts: list[ExpertCard] = []
    rejected: dict[str, str] = {}
    too_long = 0
    for card in snapshot.experts.values():
        if not card.labels <= request.labels:
            continue
        why = _obstacle(card, request, needed, health_of)
        if why is None:
            experts.append(card)
        else:
            too_long += why.startswith(_CONTEXT)
            rejected[card.id] = why
    if experts:
        return Eligibility(tuple(experts), rejected)
    if too_long:
        longest = max(card.context_length for card in snapshot.experts.values())
        raise ContextTooLong(
            f"the conversation fits no eligible expert: the longest context is {longest} tokens; "
            "shorten it or register an expert with a longer context",
            param="messages",
        )
    if not rejected:
        raise NoEligibleExpert("no expert is registered that this request may use; add one with `consilium experts add`")
    listed = "; ".join(f"{expert}: {why}" for expert, why in sorted(rejected.items()))
    raise NoEligibleExpert(f"no expert is eligible ({listed})", reasons=rejected)


def _obstacle(card: ExpertCard, request: ChatRequest, needed: frozenset[Capability], health_of: Callable[[str], HealthState]) -> str | None:
    """Why *card* may not be a candidate; None when it may."""
    options = request.options
    if not card.enabled:
        return "disabled"
    if ExpertRole.CANDIDATE not in card.roles:
        return f"its role is {', '.join(sorted(card.roles))} only"
    if options.allow is not None and card.id not in options.allow:
        return "not in consilium.allow"
    if card.id in options.deny:
        return "in consilium.deny"
    if missing := needed - card.capabilities:
        return f"lacks {', '.join(sorted(missing))}"
    if health_of(card.id) is HealthState.OPEN:
        return "unhealthy: its last calls failed, it is tried again after the cool-down"
    if (size := estimated_tokens(request, card)) > card.context_length:
        return f"{_CONTEXT} too short: {size} tokens needed at least, it has {card.context_length}"
    return None
