"""Series of experts and strategies come and go with them, and calls cost what the cards say."""

from __future__ import annotations

import httpx
import pytest

from domain.experts import Backend, ExpertCard
from domain.registry import RegistrySnapshot
from domain.strategy import Strategy
from orchestrator.resolve import is_model_name
from tests.integration.telemetry.conftest import ASK

SNAPSHOT = RegistrySnapshot(1, 1, {"a": ExpertCard("a", Backend.OPENAI, "a")}, {"panel": Strategy("panel")}, {})


async def test_what_was_removed_is_not_shown_any_more(busy: httpx.AsyncClient) -> None:
    before = (await busy.get("/metrics")).text
    assert (await busy.delete("/admin/api/strategies/council")).status_code == 204
    assert (await busy.delete("/admin/api/experts/other")).status_code == 204
    assert (await busy.post("/v1/chat/completions", json={**ASK, "model": "other"})).status_code == 404
    after = (await busy.get("/metrics")).text

    assert 'expert="other"' in before
    assert 'gen_ai_response_model="other"' in before
    assert 'gen_ai_request_model="consilium/council"' in before
    assert 'expert="other"' not in after
    assert 'gen_ai_response_model="other"' not in after
    assert "consilium/council" not in after
    assert 'consilium_expert_calls_total{expert="speaker",role="candidate",status="ok"} 3.0' in after, "others are counted on"


async def test_calls_cost_what_the_cards_say(busy: httpx.AsyncClient) -> None:
    """The reader's one call: its prompt at a dollar a million tokens, 14 tokens of an answer at two."""
    text = (await busy.get("/metrics")).text
    tokens = 'gen_ai_operation_name="chat",gen_ai_response_model="reader",gen_ai_token_type="{kind}",role="aggregator"'

    def shown(name: str, labels: str) -> float:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name}{{{labels}}}")]
        return float(line.rpartition(" ")[2])

    prompt, answer = (shown("gen_ai_client_token_usage_sum", tokens.format(kind=kind)) for kind in ("input", "output"))
    assert answer == 14
    assert shown("consilium_expert_cost_dollars_total", 'expert="reader",role="aggregator"') == pytest.approx((prompt + 2 * answer) / 1e6)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("auto", True),
        ("auto:latest", True),
        ("consilium/auto", True),
        ("consilium/panel", True),
        ("a", True),
        ("a:latest", True),
        ("b", False),
        ("panel", False),
        ("consilium/a", False),
    ],
)
def test_which_names_stand_for_something(name: str, known: bool) -> None:
    assert is_model_name(name, SNAPSHOT) is known
