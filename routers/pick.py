"""From scores to the experts that are asked. Pure.

``top_k``: the k best. ``sample``: k draws with replacement in proportion to the scores, as Symbolic-MoE does, so that one
strong expert may be asked more than once. ``dynamic``: the smallest set of the best whose shares of the total reach the
threshold, at most k (after Huang et al. 2024, "Harder Tasks Need More Experts"): an easy query gets one expert. ``gate``: of the
k best those whose own share of these k's total is above the threshold (Fusion-𝒳's threshold gate): a panel without stragglers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from domain.routing import PICK_KINDS, PickRule

_TEMPERATURE = 0.5
"""Shares are of score ** (1 / temperature), as in the paper's global term: a clear lead becomes a clear majority."""
_RIVAL_SHARE = 0.5
"""An expert below this part of the best score is no alternative. Without this rule the sum over many weak experts would
make every query of a large registry look hard."""


def check(rule: PickRule) -> None:
    """Raise ``InvalidRequest`` when *rule* cannot be followed."""
    if rule.kind not in PICK_KINDS:
        hint = did_you_mean(rule.kind, PICK_KINDS, always_list=True)
        raise InvalidRequest(f"unknown pick {quoted(rule.kind)}; {hint}", param="consilium.pick")
    if rule.k < 1:
        raise InvalidRequest(f"k is {rule.k}, it must be 1 or more", param="consilium.k")
    if not 0 < rule.threshold <= 1:
        raise InvalidRequest(f"the threshold is {rule.threshold:g}, it must be above 0 and at most 1", param="threshold")


def pick(scores: Sequence[float], rule: PickRule, *, seed: int) -> tuple[int, ...]:
    """Places in *scores* (each 0 or more, at least one) that are selected, best first.

    Equal scores keep their order. Only ``sample`` uses *seed*, and only it may name a place more than once.
    """
    check(rule)
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    match rule.kind:
        case "sample":
            return _sample(scores, rule.k, seed)
        case "dynamic":
            return tuple(ranked[: _num_needed([scores[i] for i in ranked], rule)])
        case "gate":
            return tuple(ranked[: _num_passing([scores[i] for i in ranked[: rule.k]], rule.threshold)])
        case _:
            return tuple(ranked[: rule.k])


def _sample(scores: Sequence[float], k: int, seed: int) -> tuple[int, ...]:
    # Nobody has a positive score: all are equally likely, as in the paper for a query without keywords.
    weights = scores if any(score > 0 for score in scores) else [1.0] * len(scores)
    drawn = Random(seed).choices(range(len(scores)), weights=weights, k=k)
    return tuple(sorted(drawn, key=lambda i: -scores[i]))


def _num_needed(ranked_scores: Sequence[float], rule: PickRule) -> int:
    best = ranked_scores[0]
    if best <= 0:
        return 1
    powers = [(score / best) ** (1 / _TEMPERATURE) for score in ranked_scores if score >= _RIVAL_SHARE * best]
    total, reached = math.fsum(powers), 0.0
    for number, power in enumerate(powers[: rule.k], 1):
        reached += power
        if reached >= rule.threshold * total:
            return number
    return min(rule.k, len(powers))


def _num_passing(best_scores: Sequence[float], threshold: float) -> int:
    """Of the k best, best first: how many have more than *threshold* of what they have together; one at least."""
    if best_scores[0] <= 0:
        return 1
    powers = [float((score / best_scores[0]) ** (1 / _TEMPERATURE)) for score in best_scores]
    total = math.fsum(powers)
    return max(1, sum(power > threshold * total for power in powers))
