"""Who may answer this request at all. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from domain.adjustments import AS_SCORED, RoutingAdjustments
from domain.chat import NO_OPTIONS, ChatRequest, text_of
from domain.errors import ContextTooLong, InvalidRequest, NoEligibleExpert
from domain.experts import Capability, ExpertCard, ExpertRole, HealthState
from domain.nearest import did_you_mean
from domain.quoting import quoted
from domain.registry import RegistrySnapshot

_CONTEXT, _UNHEALTHY, _INVISIBLE = "context", "unhealthy", "not for this request"


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


def prompt_letters(request: ChatRequest) -> int:
    """Letters of the whole conversation."""
    return sum(len(text_of(message)) for message in request.messages)


def fewest_tokens(letters: int, card: ExpertCard) -> int:
    """A low estimate of what a prompt of *letters* and one token of answer need: what it rejects could not have worked.
    How many tokens of answer fit is the expert's affair."""
    return int(letters / card.chars_per_token) + 1


def visible(card: ExpertCard, request: ChatRequest) -> bool:
    """Whether the caller may know of *card* at all."""
    return request.access.sees(card)


def check_names(names: Sequence[str], request: ChatRequest, snapshot: RegistrySnapshot, *, param: str) -> None:
    """Raise ``InvalidRequest`` for the first of *names* that is no expert, as far as the caller may know."""
    if not names:
        return
    known = {card.id for card in snapshot.experts.values() if visible(card, request)}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"{param}: there is no expert {quoted(name)}; {did_you_mean(name, sorted(known))}", param=param)


def eligible(request: ChatRequest, snapshot: RegistrySnapshot, check: Check) -> Eligibility:
    """The experts that may be candidates for *request*, which *check* is of.

    Raises ``InvalidRequest`` for an unknown name in ``allow`` or ``deny``, ``ContextTooLong`` when only the length
    stands in the way, ``NoEligibleExpert`` with every reason otherwise. Experts whose labels the caller lacks are
    neither used nor named.
    """
    options = request.options
    check_names(options.allow or (), request, snapshot, param="consilium.allow")
    check_names(options.deny, request, snapshot, param="consilium.deny")
    experts: list[ExpertCard] = []
    rejected: dict[str, str] = {}
    for card in snapshot.experts.values():
        if not visible(card, request):
            continue
        if (why := _role_only(card) or check.hindrance(card)) is None:
            experts.append(card)
        else:
            rejected[card.id] = why
    if experts:
        return Eligibility(tuple(experts), rejected)
    if not rejected:
        raise NoEligibleExpert("no expert is registered that this request may use; add one with `consilium experts add`")
    short = [snapshot.experts[expert_id].context_length for expert_id, why in rejected.items() if why.startswith(_CONTEXT)]
    if short and not any(why.startswith(_UNHEALTHY) for why in rejected.values()):
        raise ContextTooLong(
            f"the conversation fits no eligible expert: this model's maximum context length is {max(short)} tokens; "
            "shorten it or register an expert with a longer context",
            param="messages",
        )
    listed = "; ".join(f"{expert}: {why}" for expert, why in sorted(rejected.items()))
    raise NoEligibleExpert(f"no expert is eligible ({listed})", reasons=rejected)


def _role_only(card: ExpertCard) -> str | None:
    """Why *card* is no candidate by its roles; None when it is."""
    return None if ExpertRole.CANDIDATE in card.roles else f"its role is {' and '.join(sorted(card.roles))} only"


class Check:
    """Whether experts may be called for one request, in whatever role."""

    def __init__(self, request: ChatRequest, health_of: Callable[[str], HealthState], adjustments: RoutingAdjustments = AS_SCORED) -> None:
        self._request, self._health_of, self._adjustments = request, health_of, adjustments
        self._allows_all = request.options is NO_OPTIONS and adjustments is AS_SCORED
        """Whether nobody is allowed or denied by name, as is seen at once."""
        self._letters: int | None = None

    @cached_property
    def _needed(self) -> frozenset[Capability]:
        return needed_capabilities(self._request)

    @property
    def letters(self) -> int:
        """``prompt_letters`` of the request."""
        if self._letters is None:  # no cached property, which is behind a lock before Python 3.12
            self._letters = prompt_letters(self._request)
        return self._letters

    def barred(self, card: ExpertCard) -> str | None:
        """Why *card* may not be called whatever it is asked; None when it may."""
        return self._barred_by_name(card) if visible(card, self._request) else _INVISIBLE

    def _barred_by_name(self, card: ExpertCard) -> str | None:
        if not card.enabled:
            return "disabled"
        if self._allows_all:
            return None
        options = self._request.options
        if options.allow is not None and card.id not in options.allow:
            return "not in consilium.allow"
        if card.id in options.deny:
            return "in consilium.deny"
        if self._adjustments.allow is not None and card.id not in self._adjustments.allow:
            return "not in the strategy's allow"
        if card.id in self._adjustments.deny:
            return "in the strategy's deny"
        return None

    def obstacle(self, card: ExpertCard) -> str | None:
        """Why *card* may not be called with the conversation; None when it may. Roles are the caller's affair."""
        return self.hindrance(card) if visible(card, self._request) else _INVISIBLE

    def hindrance(self, card: ExpertCard) -> str | None:
        """The same of a *card* that the caller may see."""
        if why := self._barred_by_name(card):
            return why
        if self._needed and (missing := self._needed - card.capabilities):
            return f"lacks {', '.join(sorted(missing))}"
        if self._health_of(card.id) is HealthState.OPEN:
            return f"{_UNHEALTHY}: its last calls failed, it is tried again after the cool-down"
        if (size := fewest_tokens(self.letters, card)) > card.context_length:
            return f"{_CONTEXT} too short: {size} tokens needed at least, it has {card.context_length}"
        return None

    def usable(self, card: ExpertCard) -> bool:
        """Whether nothing is in the way of calling *card* with the conversation."""
        return self.obstacle(card) is None

    def rests(self, card: ExpertCard) -> bool:
        """Whether nothing but its circuit, which is open, stands in *card*'s way as far as it was looked at."""
        why = self.obstacle(card)
        return why is not None and why.startswith(_UNHEALTHY)
