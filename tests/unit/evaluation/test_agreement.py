"""How often wrong answers agree: pairs of experts that were wrong on the same question and said something."""

from __future__ import annotations

import numpy as np

from evaluation.comparison.agreement import Agreement, agreement


def test_pairs_are_of_wrong_answers_compared_as_votes_are() -> None:
    answers = [["7", "The answer is 8.", "**8**", "9"], ["1", "2", "2", "2"]]
    scores = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])

    assert agreement(answers, scores) == Agreement(num_pairs=3, num_alike=1)


def test_half_right_is_wrong() -> None:
    assert agreement([["8", "8"]], np.array([[0.5, 0.0]])) == Agreement(num_pairs=1, num_alike=1)


def test_silence_and_what_was_not_measured_are_in_no_pair() -> None:
    found = agreement([["8", "", None, "8"]], np.array([[0.0, 0.0, 0.0, np.nan]]))

    assert found == Agreement(0, 0)
    assert found.share is None
