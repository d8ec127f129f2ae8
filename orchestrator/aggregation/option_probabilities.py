"""What an expert holds each option of a multiple choice to be worth, read from the log-probabilities of its answer. Pure.

Growing Transformers (Bochkov, arXiv 2507.07129) averages the logits of specialists that share a vocabulary. Whole models behind an API
show no logits; but the token that states the option has alternatives, and where each expert's are letters they can be averaged.
"""

from __future__ import annotations

import math
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.chat import ChatRequest
from domain.experts import Capability
from domain.plan import Candidate, ExpertCall
from orchestrator.aggregation.vote import ballot

NUM_ALTERNATIVES = 20
"""Tokens that are asked for beside the one that was said: OpenAI's bound, and what vLLM allows by default."""
_AROUND = string.whitespace + "()[].:,*\"'▁Ġ"
"""What tokens have around a letter; the last two are spaces as some tokenizers spell them."""


def option_probabilities(answer: Candidate) -> dict[str, float] | None:
    """Letter in lower case to its share, of an answer that is one letter; shares sum to 1. None where the answer is anything else, or its
    expert told no log-probabilities of a token that is that letter."""
    said = ballot(answer)
    if len(said) != 1 or said not in string.ascii_lowercase:
        return None
    stated = [token for token in _tokens(answer) if _letter(token).lower() == said]
    if not stated:
        return None
    last, found = stated[-1], defaultdict[str, float](float)
    others = last.get("top_logprobs")
    alternatives = [token for token in others if isinstance(token, Mapping)] if isinstance(others, Sequence) else []
    if not any(token.get("token") == last.get("token") for token in alternatives):
        alternatives.append(last)
    is_upper = _letter(last).isupper()
    for token in alternatives:
        letter, logprob = _letter(token), token.get("logprob")
        if letter and letter.isupper() == is_upper and isinstance(logprob, int | float) and not isinstance(logprob, bool):
            found[letter.lower()] += math.exp(min(0.0, logprob)) if not math.isnan(logprob) else 0.0
    total = math.fsum(found.values())
    return {letter: share / total for letter, share in found.items()} if total > 0 else None


def asked_for_them(call: ExpertCall) -> ExpertCall:
    """*call* of an expert that tells log-probabilities, so that it does; a caller who wants some gets those that it asked for."""
    if Capability.LOGPROBS not in call.expert.capabilities or call.params.get("logprobs"):
        return call
    return replace(call, params={**call.params, "logprobs": True, "top_logprobs": NUM_ALTERNATIVES})


def without_them(request: ChatRequest, answer: Candidate) -> Candidate:
    """*answer* without log-probabilities that the caller of *request* has not asked for."""
    if request.params.get("logprobs") or not any(choice.logprobs is not None for choice in answer.choices):
        return answer
    return replace(answer, choices=tuple(replace(choice, logprobs=None) for choice in answer.choices))


def _tokens(answer: Candidate) -> list[Mapping[str, Any]]:
    logprobs = answer.choices[0].logprobs if answer.choices else None
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return [token for token in content if isinstance(token, Mapping)] if isinstance(content, Sequence) else []


def _letter(token: Mapping[str, Any]) -> str:
    """The letter that *token* is; "" for any other token."""
    text = str(token.get("token", "")).strip(_AROUND)
    return text if len(text) == 1 and text in string.ascii_letters else ""
