"""How sure an answer is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from domain.chat import Choice
from domain.plan import Candidate, ExpertFailure
from orchestrator.cascade.confidence import agreement, by_logprob, judge_messages, judged, read_verdict
from tests.fakes.directory import card


def said(text: str, logprobs: Any = None) -> Candidate:
    return Candidate("a", (Choice({"role": "assistant", "content": text}, logprobs=logprobs),))


@pytest.mark.parametrize(
    ("texts", "num_asked", "confidence"),
    [
        (["2", "2", "2"], 3, 1.0),
        (["2", "3", "4"], 3, 0.0),
        (["2", "the answer is 2.", "3"], 3, 1 - (2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3)) / math.log(3)),
        (["2", "2"], 3, 1 - (2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3)) / math.log(3)),
        (["2"], 3, 0.0),
    ],
)
def test_agreement_is_one_less_the_normalised_entropy_and_a_missing_sample_agrees_with_nobody(
    texts: list[str], num_asked: int, confidence: float
) -> None:
    assert agreement([said(text) for text in texts], num_asked).confidence == pytest.approx(confidence)


def test_the_answer_is_what_most_samples_say() -> None:
    assessed = agreement([said("3"), said("2"), said("2.0")], 3)

    assert assessed.answer.text == "2"
    assert assessed.why == "2 of 3 samples agree"


def test_a_mean_log_probability_is_the_geometric_mean_of_the_tokens() -> None:
    logprobs = {"content": [{"token": "4", "logprob": math.log(0.9)}, {"token": "2", "logprob": math.log(0.4)}]}

    assert by_logprob(said("42", logprobs)).confidence == pytest.approx(math.sqrt(0.36))


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "x"}]}, "none", {"content": "x"}]
)
def test_an_answer_without_log_probabilities_is_not_sure_at_all(logprobs: Any) -> None:
    assessed = by_logprob(said("42", logprobs))

    assert assessed.confidence == 0.0
    assert assessed.why == "it told no log-probabilities"


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("It adds up.\nFINAL ASSESSMENT: YES", 1.0),
        ("**Final assessment**: no.", 0.0),
        ("FINAL ASSESSMENT: YES, or rather FINAL ASSESSMENT: NO", 0.0),
        ("<think>FINAL ASSESSMENT: YES</think>FINAL ASSESSMENT: NO", 0.0),
        ("FINAL ASSESSMENT: 85%", 0.85),
        ("FINAL ASSESSMENT: 0", 0.0),
        ("FINAL ASSESSMENT: 850", None),
        ("FINAL ASSESSMENT: YESTERDAY", None),
        ("Looks fine to me", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts_and_prose_is_none(text: str, confidence: float | None) -> None:
    assert read_verdict(text) == confidence


def test_a_judge_that_fails_or_cannot_be_read_leaves_the_answer_unsure() -> None:
    assert judged(said("42"), ExpertFailure("judge", "expert_timeout", "too slow")).confidence == 0.0
    assert judged(said("42"), said("who knows")).why == "the judge a gave no readable verdict"


def test_the_judge_reads_the_conversation_as_text_and_the_answer_without_its_reasoning() -> None:
    system, user = judge_messages(card("judge"), ({"role": "user", "content": "How much is 6 times 7?"},), said("42"))

    assert "FINAL ASSESSMENT" in system["content"]
    assert "How much is 6 times 7?" in user["content"]
    assert "]\n42\n[end " in user["content"]
