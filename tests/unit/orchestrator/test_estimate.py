"""What a request is taken to need before it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.chat import ChatRequest, RequestOptions
from domain.experts import Backend, ExpertCard
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.admission.estimate import dearest, estimate
from orchestrator.resolve import Target

CARD = ExpertCard("a", Backend.OPENAI, "a")
ASKED = ChatRequest("r", "auto", ({"role": "user", "content": "How much?"},), {"max_tokens": 100})
ONE = Strategy("one", pick=PickRule("top_k", 1))


@pytest.mark.parametrize(
    ("plain", "hedged"),
    [
        (Target(ONE), Target(replace(ONE, hedge_after_s=1.0))),
        (Target(ONE, CARD), Target(ONE, replace(CARD, hedge_after_s=1.0))),
    ],
    ids=["strategy", "card"],
)
def test_a_second_call_for_a_silent_expert_is_counted(plain: Target, hedged: Target) -> None:
    worst = dearest([CARD])

    assert estimate(ASKED, hedged, worst).tokens == 2 * estimate(ASKED, plain, worst).tokens


def test_one_call_is_one_call() -> None:
    hedged, worst = Target(replace(ONE, hedge_after_s=1.0)), dearest([CARD])

    assert estimate(replace(ASKED, options=RequestOptions(max_calls=1)), hedged, worst) == estimate(ASKED, Target(ONE), worst)
