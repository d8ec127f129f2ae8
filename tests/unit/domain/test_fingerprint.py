"""Which cards answer alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.experts import Backend, ExpertCard, Price, ServingOptions

CARD = ExpertCard("a", Backend.VLLM, "qwen", sampling={"temperature": 0, "stop": ["\n"]}, extra_body={"chat_template_kwargs": {"x": True}})


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": Backend.OPENAI},
        {"model": "llama"},
        {"adapter_of": "qwen"},
        {"sampling": {"temperature": 0.1, "stop": ["\n"]}},
        {"sampling": {}},
        {"extra_body": {"chat_template_kwargs": {"x": False}}},
        {"extra_body": {"chat_template_kwargs": {"x": 1}}},
        {"serving": ServingOptions(extra_arguments=("--quantization", "fp8"))},
    ],
)
def test_what_changes_answers_changes_it(changes: dict[str, object]) -> None:
    assert replace(CARD, **changes).fingerprint != CARD.fingerprint  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"price": Price(1.0, 2.0), "description": "x", "version": 7, "enabled": False},
        {"sampling": {"stop": ["\n"], "temperature": 0.0}},
        {"base_url": "http://elsewhere/v1", "serving": ServingOptions(gpus=("0",), kv_cache_gb=4)},
        {"id": "b"},
    ],
)
def test_what_does_not_does_not(changes: dict[str, object]) -> None:
    assert replace(CARD, **changes).fingerprint == CARD.fingerprint  # type: ignore[arg-type]
