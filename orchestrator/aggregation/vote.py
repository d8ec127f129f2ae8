"""The answer that most candidates give (Wang et al. 2023, self-consistency; here over different experts)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from domain.answers import normalise_answer
from domain.chat import ChatRequest
from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, CallsNobody, Chosen
from orchestrator.aggregation.material import fits, read_json
from orchestrator.aggregation.prompts import answer_text, tool_calls_of
from orchestrator.options import Option, Options, read

TIES = Option("score", choices=("score", "size"))
"""What is looked at first between answers with as much behind them."""


class Vote(CallsNobody):
    """Majority of normalised answers. A tie goes to the answer whose voters have the higher summed router score, then
    to the one that was routed first; with ``ties: size`` first of all to the one whose voters have more parameters. Who answered nothing
    has no vote, as long as anybody answered something."""

    name: AggregatorName = "vote"
    options: Options = {"ties": TIES}  # noqa: RUF012 - never changed

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
        score = {considered.expert_id: considered.score for considered in context.decision.considered}
        voters, silent = ballots(context.request, candidates)
        most = max(map(len, voters.values()))
        tied, by_size = of_ties(context, voters, [answer for answer in voters if len(voters[answer]) == most])
        # max() keeps the earliest of equals, and dicts keep the routing order.
        answer = max(tied, key=lambda a: sum(score.get(c.expert_id, 0.0) for c in voters[a]))
        names = ", ".join(candidate.expert_id for candidate in voters[answer])
        why = f"{len(voters[answer])} of {len(candidates)} candidates agree ({names}){by_size}"
        return Chosen(voters[answer][0], f"{why}, {len(silent)} answered nothing" if silent else why, self.name)


def of_ties(context: AggregationContext, voters: Mapping[str, Sequence[Candidate]], tied: Sequence[str]) -> tuple[Sequence[str], str]:
    """Those of the *tied* answers that are left when sizes are looked at, and what is told of it: all of them, where nobody wants that
    (option ``ties``) or a voter's card does not tell its size.

    Experts of different sizes (HDEE, Ersoy et al., arXiv 2502.19385): of two that are at odds the larger one is more often right, as far
    as nothing was measured. An expert counts once, however often it was drawn.
    """
    if len(tied) < 2 or read(context.options, {"ties": TIES}, "ties") != "size":
        return tied, ""
    experts, behind = context.snapshot.experts, dict[str, float]()
    for answer in tied:
        cards = [experts.get(expert_id) for expert_id in {candidate.expert_id for candidate in voters[answer]}]
        sizes = [card.parameters_b for card in cards if card is not None and card.parameters_b is not None]
        if len(sizes) < len(cards):
            return tied, ""
        behind[answer] = math.fsum(sizes)
    largest = max(behind.values())
    left = [answer for answer in tied if math.isclose(behind[answer], largest)]
    if len(left) == len(tied):
        return tied, ""
    return left, f", as much as {len(tied) - 1} other{'s' * (len(tied) > 2)}, and {largest:.12g} billion parameters stand behind it"


def ballots(request: ChatRequest, candidates: Sequence[Candidate]) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """Who votes for what, in the candidates' order, and who has no vote: who answered nothing or, where JSON was asked, none. As long as
    anybody has one."""
    voters: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        voters[ballot(candidate) if fits(request, candidate) else ""].append(candidate)
    silent = voters.pop("", []) if len(voters) > 1 else []
    return voters, silent


def all_alike(request: ChatRequest, candidates: Sequence[Candidate]) -> bool:
    """Whether everybody gave the same answer, so that there is nothing to read."""
    voters, silent = ballots(request, candidates)
    return len(voters) == 1 and not silent and "" not in voters


def ballot(candidate: Candidate) -> str:
    """What *candidate* votes for, alike for answers that say the same; "" for none.

    Tool calls are compared as the JSON that they are: read as an answer, a call would be as much as its argument "answer".
    """
    if not (calls := tool_calls_of(candidate)):
        text = answer_text(candidate)
        return _json_spelled_alike(text) or normalise_answer(text)
    return json.dumps([_spelled_alike(call.get("function")) for call in calls], sort_keys=True)


def _json_spelled_alike(text: str) -> str | None:
    """An object or a list in one spelling; None for anything else."""
    text = text.strip()
    if text[:1] not in {"{", "["}:
        return None
    try:
        return json.dumps(read_json(text), sort_keys=True)
    except ValueError:
        return None


def _spelled_alike(function: Any) -> Any:
    """*function* with its arguments read, since servers differ in their spaces and order; as it is where they are no JSON."""
    try:
        return {**function, "arguments": read_json(function["arguments"])}
    except (KeyError, TypeError, ValueError):
        return function
