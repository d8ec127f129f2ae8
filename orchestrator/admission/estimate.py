"""What a request will use at most, as far as that can be known before it is routed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from domain.chat import ChatRequest, text_of
from domain.experts import ExpertCard
from domain.spending import Spent
from domain.strategy import DEFAULT_MODE
from orchestrator.resolve import Target

DEFAULT_ANSWER_TOKENS = 1024
"""Of an answer whose length the request does not bound with ``max_tokens``: few are longer, and what they are longer is charged too."""
MESSAGE_TOKENS = 8
"""What a chat template puts around one message."""
TEMPLATE_TOKENS = 32
"""What it puts around the conversation, or an aggregator's prompt around its candidates' answers."""
_PER_TOKEN = 1000
"""Billionths of a dollar a token, from dollars per million tokens."""


@dataclass(frozen=True, slots=True)
class Dearest:
    """The worst of the experts that may be asked."""

    chars_per_token: float
    prompt_usd: float
    completion_usd: float
    """US dollars per million tokens."""


def dearest(cards: Iterable[ExpertCard]) -> Dearest:
    """The worst of *cards* in every respect."""
    enabled = [card for card in cards if card.enabled]
    return Dearest(
        min((card.chars_per_token for card in enabled), default=4.0),
        max((card.price.prompt for card in enabled), default=0.0),
        max((card.price.completion for card in enabled), default=0.0),
    )


def prompt_tokens(text: str, chars_per_token: float) -> int:
    """Of a text: letters that are no ASCII take up to a token each."""
    num_ascii = len(text) if text.isascii() else sum(letter.isascii() for letter in text)
    return math.ceil(num_ascii / chars_per_token) + len(text) - num_ascii


def estimate(request: ChatRequest, target: Target, worst: Dearest) -> Spent:
    """All calls of *request* together, each with the whole conversation and the longest answer that it may give.

    A bound where the request has ``max_tokens`` and its text is what the experts' tokenizers were made for; else a guess. What is used in
    the end is charged in any case.
    """
    params, strategy, options = request.params, target.strategy, request.options
    prompt = TEMPLATE_TOKENS + sum(MESSAGE_TOKENS + prompt_tokens(text_of(m), worst.chars_per_token) for m in request.messages)
    if tools := params.get("tools"):
        prompt += prompt_tokens(str(tools), worst.chars_per_token)
    most = None if request.effort is None else request.effort.level.max_tokens
    asked = params.get("max_completion_tokens") or params.get("max_tokens") or min(DEFAULT_ANSWER_TOKENS, most or DEFAULT_ANSWER_TOKENS)
    answer = asked * (params.get("n") or 1)
    max_calls = min(options.max_calls or strategy.max_calls, strategy.max_calls)
    num_candidates = 1 if target.expert is not None else max(1, min(options.k or strategy.pick.k, max_calls))
    hedge_after_s = strategy.hedge_after_s if target.expert is None else target.expert.hedge_after_s
    # Of one candidate, the second call for an expert that is silent.
    num_calls = 2 if num_candidates == 1 and max_calls > 1 and hedge_after_s is not None else num_candidates
    prompts, answers = num_calls * prompt, num_calls * answer
    if target.expert is None and (options.mode or strategy.mode) != DEFAULT_MODE:  # as many calls as it may make, each reading some answers
        prompts, answers = max_calls * (prompt + answer + TEMPLATE_TOKENS), max_calls * answer
    elif num_candidates > 1 and max_calls > num_candidates:
        match options.aggregator or strategy.aggregator:
            case "fuse":
                prompts += prompt + num_candidates * answer + TEMPLATE_TOKENS
                answers += answer
            case "judge":  # each is graded apart
                num_graded = min(num_candidates, max_calls - num_candidates)
                prompts += num_graded * (prompt + answer + TEMPLATE_TOKENS)
                answers += num_graded * answer
    nano = math.ceil((prompts * worst.prompt_usd + answers * worst.completion_usd) * _PER_TOKEN)
    return Spent(prompts + answers, nano)
