"""Routers fitted on outcomes and judged on others, with a router that counts words."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from evaluation.array_cache import ArrayCache
from evaluation.comparison.arms import Floats
from evaluation.comparison.report import as_json
from evaluation.comparison.routing import RoutingComparison, RoutingOptions
from evaluation.outcomes.files import ExpertCost
from evaluation.outcomes.rows import OutcomeRow, Outcomes, outcomes_of

TOPICS = {"sums": "plus minus add subtract number total".split(), "history": "king war century empire year treaty".split()}
COSTS = {"cheap": ExpertCost("cheap", 1.0, 1.0), "dear": ExpertCost("dear", 10.0, 70.0)}


def vectors_of(texts: Sequence[str]) -> Floats:
    made = np.zeros((len(texts), 64))
    for row, text in enumerate(texts):
        for word in text.split():
            made[row, zlib.crc32(word.encode()) % 64] += 1
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)


@dataclass
class Nearest:
    vectors: Floats
    scores: Floats
    labels: Sequence[str | None]

    def predict(self, features: Floats) -> Floats:
        near = np.argsort(-(features @ self.vectors.T), axis=1, kind="stable")[:, :5]
        return self.scores[near].mean(axis=1)

    def categories(self, features: Floats) -> Sequence[str] | None:
        nearest = (features @ self.vectors.T).argmax(axis=1)
        return [str(self.labels[n]) for n in nearest] if self.labels else None


@dataclass
class WordFamily:
    """``evaluation.comparison.ports.RouterFamily``."""

    names: tuple[str, ...] = ("nearest",)
    version: str = "1"
    needs: int = 1
    seen: list[OutcomeTable] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)

    def features(self, texts: Sequence[str], told: Any) -> Floats:
        self.encoded += texts
        told(len(texts), len(texts))
        return vectors_of(texts)

    def select(self, features: Floats, rows: Sequence[int]) -> Floats:
        return features[list(rows)]

    def fit(self, name: str, features: Floats, table: OutcomeTable, *, seed: int) -> Nearest:
        if name == "picky" or len(table) < self.needs:
            raise InvalidRequest(f"{len(table)} questions are too few")
        self.seen.append(table)
        scores = np.array(table.scores).reshape(len(table), -1)
        return Nearest(features, np.nan_to_num(scores, nan=0.5), table.categories)


def rows(num: int, *, seed: int = 0) -> list[OutcomeRow]:
    """*cheap* knows sums, *dear* knows history and half of the sums."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(num):
        topic = "sums" if number % 2 else "history"
        text = " ".join([*rng.choice(TOPICS[topic], 6), f"q{seed}x{number}y{number * 7919}"])
        right = {"cheap": float(topic == "sums"), "dear": 1.0 if topic == "history" else float(rng.random() < 0.5)}
        made.append(OutcomeRow(text, category=topic, skills=(topic,), scores=right))
    return made


def table(num: int, *, seed: int = 0) -> Outcomes:
    return outcomes_of(rows(num, seed=seed), ("cheap", "dear"), source="test")


def compare(
    train: Outcomes, test: Outcomes | None = None, *, family: WordFamily | None = None, cache: ArrayCache | None = None, **options: Any
) -> Any:
    chosen = RoutingOptions(num_resamples=100, near=None, **options)
    return RoutingComparison(family or WordFamily(), train, test, COSTS, chosen, cache).execute()


def test_a_router_is_put_beside_its_baselines() -> None:
    result = compare(table(120), table(40, seed=1))

    report = result.report
    assert [row.name for row in report.rows] == ["nearest", "best single", "random expert", "oracle", "cheap", "dear"]
    assert report.best_single == "dear"
    assert report.row("nearest").accuracy > 0.95
    assert report.row("nearest").gap_closed > 0.9
    assert report.row("nearest").curve[0].cost == pytest.approx(report.row("nearest").cost)
    assert report.row("nearest").equal_cost < 0.7
    assert {missing.name for missing in report.unavailable} >= {"majority vote", "self-MoA", "fixed top-k MoA"}
    assert report.unit == "USD per million tokens"
    assert [t.grouping for t in report.groups] == ["category", "skill"]


def test_choices_have_a_line_per_router_weight_and_question() -> None:
    train, test = table(60), table(10, seed=1)

    result = compare(train, test, lambdas=(0.01, 5.0))

    lines = [choice.as_json() for choice in result.choices]
    assert len(lines) == 3 * 10
    assert [line["question"] for line in lines[:10]] == list(test.table.questions)
    assert set(lines[0]) == {"router", "question", "expert", "score"}
    assert {line.get("lambda") for line in lines} == {None, 0.01, 5.0}
    assert {line["expert"] for line in lines if line.get("lambda") == 5.0} == {"cheap"}
    assert {row.name for row in result.report.rows} >= {"nearest λ=0.01", "nearest λ=5"}


def test_test_scores_change_no_choice() -> None:
    """Whatever the test file says of the experts, the same are chosen, and expected to score the same."""
    train, test = table(100), rows(40, seed=1)
    rng = np.random.default_rng(5)
    shuffled = [OutcomeRow(r.question, category=r.category, scores=dict(zip(r.scores, rng.random(2).round(), strict=True))) for r in test]

    one = compare(train, outcomes_of(test, source="test"), lambdas=(0.05,))
    other = compare(train, outcomes_of(shuffled, source="test"), lambdas=(0.05,))

    assert one.choices == other.choices
    assert one.report.row("nearest").accuracy != other.report.row("nearest").accuracy
    assert one.report.best_single == other.report.best_single


def test_a_test_file_without_scores_is_routed_and_not_judged() -> None:
    bare = outcomes_of([OutcomeRow(row.question) for row in rows(8, seed=1)], (), source="test")

    result = compare(table(60), bare)

    assert result.report is None
    assert len(result.choices) == 8
    assert "nothing to judge" in result.notes[0]


def test_nothing_that_is_fitted_sees_a_test_question() -> None:
    family = WordFamily()

    compare(table(50), family=family, folds=5, seed=3)

    assert len(family.seen) == 5
    assert all(len(fitted) == 40 for fitted in family.seen)
    tested = [set(table(50).table.questions) - set(fitted.questions) for fitted in family.seen]
    assert set.union(*tested) == set(table(50).table.questions)
    assert sum(map(len, tested)) == 50


def test_questions_of_the_test_file_are_taken_out_of_the_training() -> None:
    """The training copy goes; the test keeps its question, and repeated ones have their choice each but count once."""
    train, test, family = rows(30), rows(10, seed=1), WordFamily()
    leaked = OutcomeRow(test[3].question.upper(), category="sums", scores={"cheap": 1.0, "dear": 1.0})

    result = compare(outcomes_of([*train, leaked, train[0]], source="train"), outcomes_of([*test, test[0]], source="test"), family=family)

    assert result.report.duplicates == {
        "test_exact": 1, "test_near": 0, "train_exact": 1, "train_near": 0, "in_both_exact": 1, "in_both_near": 0,
    }  # fmt: skip
    assert all(question.casefold() != leaked.question.casefold() for fitted in family.seen for question in fitted.questions)
    assert result.report.num_questions == 10
    assert len(result.choices) == 11


def test_a_task_is_judged_by_the_others() -> None:
    result = compare(table(40), leave_one_out=True)

    assert set(result.report.row("nearest").by_part) == {"sums", "history"}


def test_what_was_fitted_is_not_fitted_again(tmp_path: Path) -> None:
    """The same run twice: the second takes everything from the cache, and says the same. Other code, other predictions."""
    names = ("nearest", "category")
    first, second, third = WordFamily(names), WordFamily(names), WordFamily(names, version="2")
    cache = ArrayCache(tmp_path)

    one = compare(table(50), family=first, cache=cache, folds=3)
    other = compare(table(50), family=second, cache=cache, folds=3)
    compare(table(50), family=third, cache=cache, folds=3)

    assert (len(first.seen), len(second.seen), len(third.seen)) == (6, 0, 6)
    assert as_json(one) == as_json(other)


def test_the_learning_curve_grows_to_the_whole() -> None:
    result = compare(table(200), folds=4, learning_curve=True)

    points = result.report.learning
    assert [point.num_train for point in points] == [8, 15, 38, 75, 150]
    assert points[-1].accuracy == result.report.row("nearest").accuracy


def test_a_router_that_cannot_be_fitted_is_left_out_unless_it_was_asked_for() -> None:
    family = WordFamily(names=("nearest", "picky"))

    result = compare(table(40), family=family, folds=2)

    assert "picky is left out: 20 questions are too few" in result.report.notes
    with pytest.raises(InvalidRequest, match="too few"):
        compare(table(40), family=family, folds=2, routers=("picky",))


def test_categories_as_routed_are_shown() -> None:
    result = compare(table(60), family=WordFamily(names=("category",)), folds=2)

    confusion = result.report.confusions[0]
    assert (confusion.kind, confusion.rows) == ("categories", ("history", "sums"))
    assert confusion.accuracy > 0.9


def test_votes_need_answers() -> None:
    """Three experts of whom two say the same wrong thing: the vote is wrong where the best is right."""
    made = []
    for number, row in enumerate(rows(30)):
        answers = {"a": str(number), "b": "no idea", "c": "No idea."}
        made.append(OutcomeRow(row.question, scores={"a": 1.0, "b": float(number == 0), "c": float(number == 0)}, answers=answers))

    result = RoutingComparison(
        WordFamily(), outcomes_of(made, source="test"), None, {}, RoutingOptions(folds=3, num_resamples=50)
    ).execute()

    assert result.report is not None
    vote = result.report.row("majority vote of 3")
    assert (vote.calls, vote.accuracy) == (3.0, pytest.approx(1 / 30))
    assert "majority vote" not in {missing.name for missing in result.report.unavailable}
    assert result.report.notes == ("of two experts that are wrong, 100% say the same (29 pairs): alike of weighted_vote",)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"routers": ("nearst",)}, "did you mean 'nearest'"),
        ({"folds": 41}, "41 folds of 40 questions"),
        ({"folds": 2, "leave_one_out": True}, "choose one of"),
    ],
)
def test_options_that_do_not_fit(options: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        compare(table(40), **options)


def test_a_weight_of_the_price_needs_prices() -> None:
    with pytest.raises(InvalidRequest, match="needs prices"):
        RoutingComparison(WordFamily(), table(40), None, {}, RoutingOptions(lambdas=(1.0,))).execute()


def test_an_expert_that_is_only_tested_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'new'"):
        compare(table(40), outcomes_of([OutcomeRow("x", scores={"new": 1.0})], source="test"))


def test_everything_can_be_written_as_json() -> None:
    text = json.dumps(as_json(compare(table(40), folds=2).report), allow_nan=False)

    assert json.loads(text)["rows"][0]["lambda"] is None


def test_an_expert_that_no_training_question_was_measured_on_is_nobodys_choice() -> None:
    """The cheapest of all, and unknown: at a high weight of the price it would be chosen everywhere, and nobody would know how it did."""
    ghostly = outcomes_of(rows(120), ("cheap", "dear", "ghost"), source="test")
    judged = outcomes_of(rows(40, seed=1), ("cheap", "dear", "ghost"), source="test")
    costs = {**COSTS, "ghost": ExpertCost("ghost", 0.01, 0.1)}
    options = RoutingOptions(num_resamples=20, near=None, lambdas=(5.0,))

    result = RoutingComparison(WordFamily(), ghostly, judged, costs, options).execute()
    report = result.report

    assert report is not None
    assert report.expert_ids == ("cheap", "dear")
    assert any("ghost is left out" in note for note in report.notes)
    assert {choice.expert for choice in result.choices} <= {"cheap", "dear"}
    assert report.row("nearest").equal_cost > 0.05


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -1.0])
def test_a_weight_is_a_number(weight: float) -> None:
    with pytest.raises(InvalidRequest, match="lambda"):
        compare(table(40), lambdas=(weight,))
