"""Comparisons in a process of their own: what nobody waits for any more must not compute on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from evaluation import bounded_child
from evaluation.bounded import BoundedComparer, ComparisonTimeout

HOSTILE = {"op": "regex", "pattern": "(a+)+$", "text": "a" * 40 + "b"}


def test_a_child_whose_parent_was_killed_ends_by_itself() -> None:
    command = [sys.executable, "-P", bounded_child.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps({**HOSTILE, "limit_s": 1.0}) + "\n")
        child.stdin.flush()  # and stays open, as a pipe does that a grandchild inherited

        assert child.wait(timeout=30) != 0


def test_the_first_comparison_of_each_kind_has_the_time_to_load_its_library() -> None:
    comparer = BoundedComparer(timeout_s=0.05, start_timeout_s=60.0)
    try:
        assert comparer.matches("^b", "a\nb")
        assert comparer.math_equal("1/2", "0.5")
    finally:
        comparer.close()


def test_a_hostile_formula_never_has_the_time_that_is_for_loading() -> None:
    comparer = BoundedComparer(timeout_s=0.2, start_timeout_s=30.0)
    try:
        for _ in range(2):  # the second time in a process that follows one that was cut off
            with pytest.raises(ComparisonTimeout, match=r"than 0\.2 s"):
                comparer.math_equal("1", "9^{9^{9^{9}}}")
    finally:
        comparer.close()
