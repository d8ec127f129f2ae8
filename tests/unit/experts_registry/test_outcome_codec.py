"""Outcomes and routes come back from JSON as they were."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.batch import LineRoute
from domain.cascade import CascadeRule
from domain.chat import Choice, Usage
from domain.plan import Candidate, ExpertFailure, Outcome
from domain.skills import SkillMatch
from experts_registry.outcome_codec import outcome_from_object, outcome_to_object, route_from_object, route_to_object, to_json

TEXTS = st.text(st.characters() | st.sampled_from(["\0", "\ud800", "\udfff", "\u2028", "🏛"]), max_size=20)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
CHOICES = st.builds(
    Choice,
    message=OBJECTS,
    index=st.integers(0, 5),
    finish_reason=st.none() | TEXTS,
    logprobs=st.none() | OBJECTS,
    extra=OBJECTS,
)
USAGES = st.builds(Usage, st.integers(0, 2**40), st.integers(0, 2**40), OBJECTS)
SECONDS = st.floats(0, 1e6)
CANDIDATES = st.builds(
    Candidate, TEXTS, st.lists(CHOICES, max_size=3).map(tuple), USAGES, latency_s=SECONDS, extra=OBJECTS, num_retries=st.integers(0, 3)
)
FAILURES = st.builds(
    ExpertFailure,
    TEXTS,
    TEXTS,
    TEXTS,
    latency_s=SECONDS,
    expert_at_fault=st.booleans(),
    retry_after_s=st.none() | SECONDS,
    param=st.none() | TEXTS,
)
MATCHES = st.builds(SkillMatch, TEXTS, st.floats(-1, 1), st.floats(0, 1))
ROUTES = st.builds(
    LineRoute,
    router=TEXTS,
    selected=st.lists(TEXTS, max_size=3).map(tuple),
    scores=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    aggregator=st.none() | TEXTS,
    strategy=st.none() | TEXTS,
    reason=TEXTS,
    skills=st.lists(MATCHES, max_size=3).map(tuple),
    category=st.none() | TEXTS,
    fallback=st.booleans(),
    calls=st.lists(CANDIDATES | FAILURES, max_size=2).map(tuple),
    cascade=st.none() | st.builds(CascadeRule, TEXTS, st.floats(0, 1), st.integers(2, 8), st.none() | TEXTS),
)

TOOLS = Choice(
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    finish_reason="tool_calls",
    logprobs={"content": [{"token": "1", "logprob": -0.25, "bytes": [49], "top_logprobs": []}]},
    extra={"stop_reason": 128},
)


def again(outcome: Outcome) -> Outcome:
    return outcome_from_object(json.loads(to_json(outcome_to_object(outcome))))


@given(CANDIDATES | FAILURES)
def test_an_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    assert again(outcome) == outcome


@given(ROUTES)
def test_a_route_comes_back_as_it_was(route: LineRoute) -> None:
    assert route_from_object(json.loads(to_json(route_to_object(route)))) == route


@pytest.mark.parametrize(
    "outcome",
    [
        Candidate("a", (TOOLS,), Usage(7, 3, {"completion_tokens_details": {"reasoning_tokens": 2}}), 0.5, {"system_fingerprint": "x"}, 2),
        Candidate("a", ()),
        Candidate("a", (Choice({"content": "half \ud83d and \0"}, finish_reason=None),)),
        ExpertFailure("a", "expert_timeout", "no answer", 3.5, expert_at_fault=False, retry_after_s=0.0),
    ],
)
def test_what_experts_really_say_comes_back(outcome: Outcome) -> None:
    assert again(outcome) == outcome


def test_it_is_ascii_so_that_every_database_takes_it() -> None:
    assert to_json({"text": "é \ud800 \0"}).isascii()


def test_numbers_that_json_has_not_become_null() -> None:
    logprobs: dict[str, Any] = {"content": [{"logprob": -math.inf, "other": (math.nan, 1)}]}

    came = again(Candidate("a", (Choice({}, logprobs=logprobs),)))

    assert isinstance(came, Candidate)
    assert came.choices[0].logprobs == {"content": [{"logprob": None, "other": [None, 1]}]}


def test_scores_may_be_numpys() -> None:
    route = LineRoute("skills", ("a",), (np.float32(0.5),))

    assert route_from_object(json.loads(to_json(route_to_object(route)))).scores == (0.5,)


def test_a_route_is_small() -> None:
    """100,000 lines of three experts: 20 MB."""
    route = LineRoute(
        "skills", ("numerals", "arithmetic", "text"), (0.91, 0.4, 0.2), "fuser", "auto", "like 8 known questions about numerals"
    )

    assert len(to_json(route_to_object(route))) < 220
