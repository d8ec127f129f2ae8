"""Names that a type in the domain lists: each has its implementation, and every implementation is listed."""

from __future__ import annotations

from domain.skills import GRADER_NAMES
from domain.strategy import AGGREGATOR_NAMES
from evaluation import graders
from orchestrator.aggregation.catalogue import AGGREGATORS


def test_every_aggregator_that_may_be_asked_for_is_there() -> None:
    assert sorted(AGGREGATORS) == sorted(AGGREGATOR_NAMES)


def test_every_grader_that_a_question_may_name_is_there() -> None:
    """``judge`` compares nothing: it asks an expert."""
    assert sorted([*graders._COMPARE, "judge"]) == sorted(GRADER_NAMES)
