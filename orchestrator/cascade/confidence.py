"""How sure an answer is. Pure; every confidence is in [0, 1], with the reason for people.

Mowst (arXiv 2311.05185) runs the strong expert where the weak one's answer is dispersed; here the dispersion is that of sampled
answers, of the tokens' probabilities, or what a judge says of it (HDFlow's fast thinking, arXiv 2409.17433).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from domain.chat import Message, text_of
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertFailure, Outcome
from orchestrator.aggregation.fallback import is_answer
from orchestrator.aggregation.prompts import COMPACT, answer_text, fuse_messages
from orchestrator.aggregation.vote import ballot
from orchestrator.prompts import Block, fenced, instructions

_VERDICT = re.compile(r"FINAL\s+ASSESSMENT\W{0,4}\s*(?P<said>yes|no|\d{1,3}(?:\.\d+)?\s*%?)(?!\w|\.\d)", re.IGNORECASE)
_MAX_JUDGED_CHARS = 20_000
"""Letters of a question, and of an answer, that a judge is shown: what is longer is cut, from its end."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """One expert's answer and how sure it is."""

    answer: Candidate
    confidence: float
    why: str


def agreement(answers: Sequence[Candidate], num_asked: int) -> Assessed:
    """1 − entropy / log n over *num_asked* samples: 1 when all say the same, 0 when no two do. The answer is the most frequent one.

    Answers are compared as votes are (``normalise_answer``). A sample that failed or says nothing agrees with nobody. *answers* is
    not empty, and each says something.
    """
    ballots = [ballot(answer) for answer in answers]
    counts = Counter(ballots)
    said, num_alike = max(counts.items(), key=lambda item: item[1])
    best = answers[ballots.index(said)]
    shares = [count / num_asked for count in (*counts.values(), *[1] * (num_asked - len(answers)))]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    confidence = max(0.0, 1.0 - entropy / math.log(num_asked)) if num_asked > 1 else 0.0
    return Assessed(best, confidence, f"{num_alike} of {num_asked} samples agree")


def by_logprob(answer: Candidate) -> Assessed:
    """The geometric mean of the answer's token probabilities: exp of the mean log-probability. 0 where the expert told none."""
    values = token_logprobs(answer.choices[0].logprobs if answer.choices else None)
    if not values:
        return Assessed(answer, 0.0, "it told no log-probabilities")
    mean = math.fsum(values) / len(values)
    return Assessed(answer, min(1.0, math.exp(mean)), f"mean log-probability {mean:.3f} over {len(values)} tokens")


def token_logprobs(logprobs: Any) -> list[float]:
    """The log-probabilities in OpenAI's object of a chat choice; empty for anything else."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    values = [token.get("logprob") for token in content if isinstance(token, Mapping)] if isinstance(content, Sequence) else []
    return [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)]


def judged(answer: Candidate, verdict: Outcome) -> Assessed:
    """What the judge said: YES is 1, NO is 0, a number is per cent. What cannot be read, and a judge that failed, is 0."""
    if isinstance(verdict, ExpertFailure):
        return Assessed(answer, 0.0, f"the judge {verdict.expert_id} failed ({verdict.message})")
    confidence = read_verdict(verdict.text) if is_answer(verdict) else None
    if confidence is None:
        return Assessed(answer, 0.0, f"the judge {verdict.expert_id} gave no readable verdict")
    return Assessed(answer, confidence, f"the judge {verdict.expert_id} said {confidence:.0%}")


def read_verdict(text: str) -> float | None:
    """The last ``FINAL ASSESSMENT`` of *text* in [0, 1]; None when there is none that can be read."""
    found = [match["said"] for match in _VERDICT.finditer(text.rpartition("</think>")[2])]
    if not found:
        return None
    said = found[-1].lower().rstrip(" %")
    if said in {"yes", "no"}:
        return float(said == "yes")
    return float(said) / 100 if float(said) <= 100 else None


def judge_messages(
    judge: ExpertCard, messages: Sequence[Message], answer: Candidate, prompts: Mapping[str, str] = MappingProxyType({})
) -> tuple[Message, ...]:
    """What *judge* is sent: the conversation as text, and *answer*; *prompts* are a strategy's own.

    One that was trained to judge and cannot follow instructions (``aggregation_prompt: compact``) gets the conversation with the first
    60 letters of the answer as its only numbered line: it is for short answers.
    """
    if judge.aggregation_prompt == COMPACT:
        return fuse_messages(messages, [answer_text(answer)], COMPACT)
    asked = "\n\n".join(f"{message.get('role')}: {text}" for message in messages if (text := text_of(message)))
    shown = fenced([Block("question", asked[-_MAX_JUDGED_CHARS:]), Block("answer", answer_text(answer)[:_MAX_JUDGED_CHARS])])
    return ({"role": "system", "content": instructions("judge.verdict", prompts)}, {"role": "user", "content": shown})
