"""What a caller may say to LiteLLM, and what only a card may."""

from __future__ import annotations

from domain.deadline import Deadline
from domain.experts import Backend, ExpertCard
from domain.plan import ExpertCall
from workers.litellm_worker import _arguments

CARD = ExpertCard("e1", Backend.LITELLM, "anthropic/claude", extra_body={"drop_params": True, "top_k": 5, "extra_body": {"tier": "card"}})


def test_only_the_card_sets_litellm_s_own_arguments() -> None:
    params = {"temperature": 1, "top_k": 9, "drop_params": False, "api_base": "http://caller", "tier": "caller", "fallbacks": ["x"]}
    arguments = _arguments(ExpertCall(CARD, (), params, Deadline.after(60), "r1"), stream=False)

    assert arguments == {
        "temperature": 1,
        "drop_params": True,
        "top_k": 5,
        "extra_body": {"api_base": "http://caller", "tier": "card", "fallbacks": ["x"]},
        "model": "anthropic/claude",
        "messages": [],
    }
