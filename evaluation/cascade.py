"""What a cascade would have cost and scored at each threshold, and which one to take. Pure.

Mowst (arXiv 2311.05185) chooses the threshold on a development set; here it is the one that scores best within a target, of cost or of
how often the next expert is asked. Works on whatever has a confidence: runs of a strategy, or an ``OutcomeTable``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable

_MAX_POINTS = 200
"""Points of a curve that are told: more say nothing more."""


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """One expert's turn at one question."""

    score: float
    """Of its answer, in [0, 1]."""
    confidence: float | None
    """None: it is the last, or has not answered; then the next one is asked whatever the threshold."""
    cost: float
    """Of its answer and of judging it, in any unit."""
    answered: bool = True


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A cascade at one threshold; means over the questions."""

    threshold: float
    accuracy: float
    cost: float
    cost_share: float
    """Of what asking the last expert every time costs."""
    escalation_rate: float
    """Share of the questions for which the first expert was not enough."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The threshold that was chosen, and what it was chosen from."""

    chosen: OperatingPoint
    curve: tuple[OperatingPoint, ...]
    """By threshold, lowest first: from never asking the next expert to always asking it where the answer is not wholly sure."""
    last_alone: OperatingPoint
    """The last expert every time, without the ones before."""
    num_questions: int


def walk(stages: Sequence[StageOutcome], threshold: float) -> tuple[float, float, int]:
    """Score, cost and number of experts asked for one question: as ``orchestrator.cascade`` goes about it."""
    cost, best = 0.0, StageOutcome(0.0, -1.0, 0.0)
    for number, stage in enumerate(stages, 1):
        cost += stage.cost
        if not stage.answered:
            continue
        if number == len(stages) or (stage.confidence is not None and stage.confidence >= threshold):
            return stage.score, cost, number
        if stage.confidence is not None and stage.confidence >= (best.confidence or 0.0):
            best = stage
    return best.score, cost, len(stages)


def operating_point(questions: Sequence[Sequence[StageOutcome]], threshold: float) -> OperatingPoint:
    """The means over *questions* (each its stages, in order)."""
    walked = [walk(stages, threshold) for stages in questions]
    num, full = len(questions), math.fsum(stages[-1].cost for stages in questions)
    cost = math.fsum(cost for _, cost, _ in walked)
    return OperatingPoint(
        threshold=threshold,
        accuracy=math.fsum(score for score, _, _ in walked) / num,
        cost=cost / num,
        cost_share=cost / full if full else 0.0,
        escalation_rate=sum(asked > 1 for _, _, asked in walked) / num,
    )


def calibrate(
    questions: Sequence[Sequence[StageOutcome]], *, target_cost: float | None = None, escalation_rate: float | None = None
) -> Calibration:
    """The threshold with the best accuracy among those within the target; of equals the cheapest. Without a target among all.

    *target_cost* is a share of what asking the last expert every time costs. Raises ``InvalidRequest`` when there are no questions,
    both targets are given, or none of the thresholds meets the target.
    """
    if not questions:
        raise InvalidRequest("a cascade is calibrated on questions, and there are none")
    if target_cost is not None and escalation_rate is not None:
        raise InvalidRequest("give one target, a cost or an escalation rate", param="target_cost")
    curve = tuple(operating_point(questions, threshold) for threshold in _thresholds(questions))
    within = [
        point
        for point in curve
        if (target_cost is None or point.cost_share <= target_cost + 1e-9)
        and (escalation_rate is None or point.escalation_rate <= escalation_rate + 1e-9)
    ]
    if not within:
        least = min(curve, key=lambda point: (point.cost_share, point.escalation_rate))
        raise InvalidRequest(
            f"no threshold meets the target: even the lowest costs {least.cost_share:.2f} of the last expert alone and asks on for "
            f"{least.escalation_rate:.0%} of the questions",
            param="target_cost" if target_cost is not None else "escalation_rate",
        )
    chosen = max(within, key=lambda point: (point.accuracy, -point.cost, -point.threshold))
    alone = operating_point([[stages[-1]] for stages in questions], 0.0)
    return Calibration(chosen, curve, alone, len(questions))


def stages_of(table: OutcomeTable, order: Sequence[str], confidences: Mapping[str, Sequence[float]]) -> list[list[StageOutcome]]:
    """*table* as a cascade over the experts *order* would have met it; *confidences* are those of each but the last, by question.

    Costs are the table's prices, else its tokens, else 1 an answer. A cell that was not measured has not answered. Raises
    ``InvalidRequest`` for an expert that the table does not have or whose confidences are missing.
    """
    for expert_id in order:
        if expert_id not in table.expert_ids:
            raise InvalidRequest(f"the table has no expert {expert_id!r}; it has {', '.join(table.expert_ids)}", param="order")
    for expert_id in order[:-1]:
        if len(confidences.get(expert_id, ())) != len(table):
            raise InvalidRequest(f"{expert_id!r} needs one confidence for each of the {len(table)} questions", param="confidences")
    width, matrix = len(table.expert_ids), table.usd or table.tokens
    found = []
    for row in range(len(table)):
        stages = []
        for expert_id in order:
            cell = row * width + table.expert_ids.index(expert_id)
            score, cost = table.scores[cell], 1.0 if matrix is None else matrix[cell]
            confidence = confidences[expert_id][row] if expert_id != order[-1] else None
            stages.append(StageOutcome(score, confidence, 0.0 if math.isnan(cost) else cost, answered=not math.isnan(score)))
        found.append(stages)
    return found


def _thresholds(questions: Sequence[Sequence[StageOutcome]]) -> list[float]:
    """Every one that makes a difference, thinned out evenly: between two neighbouring confidences, 0, and 1."""
    known = sorted({stage.confidence for stages in questions for stage in stages[:-1] if stage.confidence is not None})
    between = [0.0, *((low + high) / 2 for low, high in pairwise(known)), 1.0]
    step = max(1, math.ceil(len(between) / _MAX_POINTS))
    return sorted({*between[::step], between[-1]})
