"""How good each expert is expected to be at a query, from counts. Pure: arrays in, arrays out.

Shapes: experts E, matched skills M, all skills S. ``weights`` (M,) are the query's shares of its skills, summing to 1.
Two ways of scoring; docs/adr/0004-routing.md says why the first is the default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

_POOL_STRENGTH = 5.0
"""Answers that the pool's mean accuracy is worth in an expert's overall accuracy."""
_UNMEASURED_POOL = 0.25
"""Taken for the pool's mean accuracy when nobody was ever measured."""
UNKNOWN_SHARE = 0.05
"""Of the pool's mean accuracy, for an expert that was never measured and declares none of the query's skills: no evidence at
all. More would give a new model the seat of one that was measured, whatever is asked."""
_PAPER_TEMPERATURE = 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of E experts on the M skills of a query, and overall."""

    num_answered: Floats
    """(E, M)"""
    num_correct: Floats
    """(E, M)"""
    declared: Floats
    """(E, M), 1 where the expert declares the skill."""
    overall_answered: Floats
    """(E,)"""
    overall_correct: Floats
    """(E,)"""
    symbolic_total: Floats
    """(E,), the sum of ±1 over all skills."""


def overall_accuracy(counts: Counts, *, pool_accuracy: float | None) -> Floats:
    """(E,) in [0, 1]: accuracy over all questions, shrunk towards *pool_accuracy*, the mean over everybody's answers."""
    pool = _UNMEASURED_POOL if pool_accuracy is None else pool_accuracy
    return (counts.overall_correct + _POOL_STRENGTH * pool) / (counts.overall_answered + _POOL_STRENGTH)


def skill_accuracy(counts: Counts, overall: Floats, weights: Floats, *, prior_strength: float, declared_strength: float) -> Floats:
    """(E, M) in [0, 1]: ``(num_correct + a) / (num_answered + a + b)`` per skill.

    The pseudo-counts say what to expect before the first answer: the expert's overall accuracy, and more where it declares
    the skill. An expert that was measured keeps nothing of its claim: after 100 answers it moves the accuracy by 0.02.
    One that was never measured stands behind everybody with a right answer, unless it declares a part of the query: by that
    part's weight it is then trusted with the rest.
    """
    claim = declared_strength * counts.declared
    prior_correct = prior_strength * overall[:, None] + claim
    total = counts.num_answered + prior_strength + claim
    accuracy = np.divide(counts.num_correct + prior_correct, total, out=np.zeros_like(total), where=total > 0)
    never_measured = counts.overall_answered[:, None] == 0
    if not never_measured.any():
        return accuracy
    claimed = (counts.declared @ weights)[:, None]
    least_proven = np.where(counts.num_correct > 0, accuracy, 1.0).min(axis=0, initial=1.0)
    by_claim = np.where(claimed > 0, claimed * accuracy, np.minimum(UNKNOWN_SHARE * accuracy, least_proven / 2))
    return np.where(never_measured & (counts.declared == 0), by_claim, accuracy)


def shrunk_scores(accuracy: Floats, overall: Floats, weights: Floats, *, global_weight: float) -> Floats:
    """(E,) in [0, 1]: local suitability × global strength.

    Local suitability is the expected accuracy over the query's skills. Global strength is the overall accuracy relative to
    the best expert's, to the power *global_weight*: with the paper's weight (power 2 of the share) a generalist that is right
    half of the time everywhere would beat every specialist on the specialist's own ground.
    """
    local = accuracy @ weights if len(weights) else overall
    best = float(overall.max(initial=0.0))
    strength = (overall / best) ** global_weight if best > 0 else np.ones_like(overall)
    return np.clip(local * strength, 0.0, 1.0)


def symbolic_scores(counts: Counts) -> Floats:
    """(E,) shares that sum to 1: the scoring of Symbolic-MoE (arXiv 2503.05641), as its code does it.

    1. Suitability S: the sum of +1 per correct and -1 per wrong answer over the query's skills, each skill counted once.
    2. Strength: the same sum over all skills; if one is negative, all are shifted so that the least is 1; then
       ``x ** (1 / T) / sum`` with T = 0.5.
    3. Candidates have S > 0; if nobody has, S is shifted so that the least is 1. Score: S × strength.
    """
    suitability = (2 * counts.num_correct - counts.num_answered).sum(axis=1)
    total = counts.symbolic_total
    if len(total) and total.min() < 0:
        total = total - total.min() + 1
    strength = _shares(total ** (1 / _PAPER_TEMPERATURE))
    if not (suitability > 0).any():
        suitability = suitability - suitability.min(initial=0.0) + 1
    return _shares(np.maximum(suitability, 0.0) * strength)


def _shares(values: Floats) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.full_like(values, 1 / max(len(values), 1))
