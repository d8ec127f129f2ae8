"""Queries that cannot be routed by what they say. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import InvalidRequest, NoEligibleExpert
from domain.routing import RoutingQuery
from routers.conversation import more_than_text, routed_text
from routers.explanation import HOW_TO_ADD


def require_text(query: RoutingQuery) -> None:
    """Raise ``InvalidRequest`` when there is nothing to route by, unless the fallback expert may look at what is no text."""
    messages = query.request.messages
    if not routed_text(messages).last and not (query.fallback_expert and more_than_text(messages)):
        raise InvalidRequest("messages hold no text to route by; write a question, or ask a model by name", param="messages")


def fallback_expert(query: RoutingQuery, expert_ids: Sequence[str], problem: str) -> str:
    """The strategy's fallback expert. Raises ``NoEligibleExpert`` with *problem* when there is none to use, and with what is in its way."""
    wanted = query.fallback_expert
    if wanted is None:
        raise NoEligibleExpert(f"{problem}. Ask a model by name, {HOW_TO_ADD}, or give the strategy a fallback expert")
    if wanted in expert_ids:
        return wanted
    why = query.rejected.get(wanted, "it is not among those that may be asked")
    # First what is in its way: the skills there are may fill all the room that a message has.
    raise NoEligibleExpert(
        f"the fallback expert {wanted!r} is not eligible now ({why}), and {problem}. Ask a model by name, {HOW_TO_ADD}, "
        "or give the strategy another fallback expert",
        reasons={wanted: why},
    )
