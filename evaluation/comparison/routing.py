"""Routers fitted on outcomes, judged on others: the work behind ``consilium eval routing``.

Nothing that is fitted, chosen or tuned here sees a test score: ``_FoldResult`` is made from training outcomes and the texts of test
questions, and scores are looked up afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.outcomes import OutcomeTable
from evaluation.array_cache import ArrayCache, content_key
from evaluation.comparison.agreement import agreement
from evaluation.comparison.arms import Arm, CurvePoint, Floats, Ints, Measured, Unavailable
from evaluation.comparison.costs import Costs
from evaluation.comparison.coverage import coverage_of
from evaluation.comparison.metrics import gap_closed, lambda_grid, mean, penalised_choice
from evaluation.comparison.oracle import oracle_gap
from evaluation.comparison.ports import Features, FittedRouter, RouterFamily
from evaluation.comparison.report import Confusion, LearningPoint, Report
from evaluation.comparison.summary import (
    BEST_SINGLE,
    category_confusion,
    experts_by_category,
    group_tables,
    oracle_arm,
    random_arm,
    rows_of,
    single_arms,
)
from evaluation.comparison.votes import NO_ANSWERS, NO_CALLS, vote_arms
from evaluation.outcomes.duplicates import NEAR, drop_duplicates
from evaluation.outcomes.files import ExpertCost
from evaluation.outcomes.joined import Answers, answers_in, joined
from evaluation.outcomes.rows import Outcomes
from evaluation.outcomes.splits import Split, k_folds, leave_one_out

LEARNING_SHARES = (0.05, 0.1, 0.25, 0.5)
"""Parts of the training questions that the learning curve is drawn over, beside all of them."""
Progress = Callable[[str, int, int], None]
"""Hears a stage's name, and how many of how many of its steps are done."""


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """What is compared, and how."""

    routers: tuple[str, ...] | None = None
    """All when None."""
    lambdas: tuple[float, ...] = ()
    """Weights of the price beside 0, each an arm of its own per router."""
    folds: int | None = None
    leave_one_out: bool = False
    seed: int = 0
    near: float | None = NEAR
    """Overlap from which questions count as nearly the same; None drops exact duplicates only."""
    learning_curve: bool = False
    num_resamples: int = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom a router chose for a test question, and the score that it expected of it."""

    router: str
    question: str
    expert: str
    score: float
    lambda_: float | None = None

    def as_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"router": self.router, "question": self.question, "expert": self.expert, "score": self.score}
        return row if self.lambda_ is None else {**row, "lambda": self.lambda_}


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """The report, and every choice that it stands on. Without any test score there is no report."""

    report: Report | None
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class RoutingComparison:
    """One run. ``execute`` may be called again after an interruption: what was fitted is in *cache*."""

    family: RouterFamily
    train: Outcomes
    test: Outcomes | None
    """None: splits of *train*."""
    experts: Mapping[str, ExpertCost] = field(default_factory=dict)
    options: RoutingOptions = RoutingOptions()
    cache: ArrayCache | None = None
    progress: Progress = lambda *_: None

    def execute(self) -> RoutingResult:
        """Fit, choose, and judge. Raises ``InvalidRequest`` for options and tables that do not fit together."""
        names = self._names()
        train, test, duplicates = self._distinct()
        train, test, unmeasured = _measured_experts(train, test)
        splits = self._splits(train, test)
        pool = joined(train.table, None if test is None else test.table)
        texts = list(dict.fromkeys([*pool.questions, *(() if self.test is None else self.test.table.questions)]))
        features = self.family.features(texts, lambda done, of: self.progress("encoding questions", done, of))
        place = {text: number for number, text in enumerate(texts)}
        rows = _Rows(self.family, features, place)
        folds, notes = self._fold_results(names, splits, pool, rows)
        choices = self._choices(folds, pool)
        answers = answers_in(pool, train, test)
        judged = _judged(pool, splits)
        if not len(judged) or np.isnan(_scores(judged)).all():
            return RoutingResult(None, choices, ("the test questions have no scores: there are choices, but nothing to judge them by",))
        report = self._report(pool, folds, answers, duplicates=duplicates, notes=[*unmeasured, *notes, *_agreement_notes(answers, pool)])
        if self.options.learning_curve:
            report = replace(report, learning=self._learning(report, splits, pool, rows))
        return RoutingResult(report, choices, report.notes)

    def _names(self) -> tuple[str, ...]:
        for name in self.options.routers or ():
            if name not in self.family.names:
                raise InvalidRequest(f"there is no router {name!r} that learns from outcomes; {did_you_mean(name, self.family.names)}")
        names = tuple(dict.fromkeys(self.options.routers or self.family.names))
        for weight in self.options.lambdas:
            if not 0 <= weight < math.inf:
                raise InvalidRequest(f"lambda is {weight:g}, it must be a number from 0")
        if self.options.lambdas and not Costs.of(self.train.table, self.experts).unit:
            raise InvalidRequest("a weight of the price needs prices: give --experts with usd_per_million_tokens, or usd per answer")
        return names

    def _distinct(self) -> tuple[Outcomes, Outcomes | None, dict[str, int]]:
        """Training and test questions without duplicates; across both, the training copy goes."""
        self.progress("looking for duplicates", 0, 1)
        test, counts = self.test, dict[str, int]()
        if test is not None:
            kept = drop_duplicates(test.table.questions, near=self.options.near)
            counts |= {"test_exact": kept.num_exact, "test_near": kept.num_near}
            test = test.rows(kept.kept)
            missing = [expert for expert in test.table.expert_ids if expert not in self.train.table.expert_ids]
            if missing:
                raise InvalidRequest(
                    f"the test table has scores of {', '.join(map(repr, missing))}, whom the training table does not know: "
                    "no router can choose them"
                )
        own = drop_duplicates(self.train.table.questions, near=self.options.near)
        train = self.train.rows(own.kept)
        counts |= {"train_exact": own.num_exact, "train_near": own.num_near}
        if self.test is not None:
            others = drop_duplicates(train.table.questions, against=self.test.table.questions, near=self.options.near)
            train = train.rows(others.kept)
            counts |= {"in_both_exact": others.num_exact, "in_both_near": others.num_near}
        self.progress("looking for duplicates", 1, 1)
        if not len(train.table):
            raise InvalidRequest("no training question is left when duplicates of test questions are dropped")
        if np.isnan(_scores(train.table)).all():
            raise InvalidRequest("the training questions have no scores: there is nothing to learn from")
        return train, test, counts

    def _splits(self, train: Outcomes, test: Outcomes | None) -> list[Split]:
        options, num = self.options, len(train.table)
        if test is not None:
            if options.folds is not None or options.leave_one_out:
                raise InvalidRequest("folds are made of one table: leave --test out, or --folds and --leave-one-task-out")
            return [Split("test", tuple(range(num)), tuple(range(num, num + len(test.table))))]
        if options.leave_one_out:
            if options.folds is not None:
                raise InvalidRequest("choose one of --folds and --leave-one-task-out")
            return leave_one_out(train.table.categories)
        return k_folds(num, options.folds or 5, seed=options.seed)

    def _fold_results(
        self, names: Sequence[str], splits: Sequence[Split], pool: OutcomeTable, rows: _Rows
    ) -> tuple[list[_FoldResult], list[str]]:
        folds, notes, failed = [], list[str](), set[str]()
        for split in splits:
            kept = _questions(pool, split.test)
            # Questions that are there twice are chosen for twice, though they count once.
            asked = kept if self.test is None else self.test.table.questions
            place = {question: number for number, question in enumerate(asked)}
            judged = [place[question] for question in kept]
            fold = _FoldResult(split, pool.rows(split.train), asked, kept)
            for number, name in enumerate(names):
                self.progress(f"{split.name} of {len(splits)}" if len(splits) > 1 else "routers", number, len(names))
                if name in failed:
                    continue
                try:
                    scores, categories = self._predicted(name, fold.train, asked, rows)
                except InvalidRequest as error:
                    if self.options.routers:
                        raise
                    failed.add(name)
                    notes.append(f"{name} is left out: {error}")
                    continue
                fold.expected[name], fold.predicted[name] = scores, scores[judged]
                fold.categories[name] = None if categories is None else tuple(categories[number] for number in judged)
            self.progress(f"{split.name} of {len(splits)}" if len(splits) > 1 else "routers", len(names), len(names))
            folds.append(fold)
        for fold in folds:
            for name in failed:
                for found in (fold.expected, fold.predicted, fold.categories):
                    found.pop(name, None)
        if not any(fold.predicted for fold in folds):
            raise InvalidRequest("no router could be fitted: " + "; ".join(notes) if notes else "there is no router to fit")
        return folds, notes

    def _predicted(self, name: str, train: OutcomeTable, questions: Sequence[str], rows: _Rows) -> tuple[Floats, tuple[str, ...] | None]:
        """(N, E) what router *name*, fitted on *train*, expects on *questions*; from the cache when it was fitted before."""
        seed = self.options.seed
        fitted: FittedRouter | None = None

        def fit() -> FittedRouter:
            nonlocal fitted
            if fitted is None:
                fitted = self.family.fit(name, rows.of(train.questions), train, seed=seed)
            return fitted

        key = content_key(
            "routing", self.family.version, name, str(seed), train.expert_ids, train.questions, train.scores.tobytes(),
            [category or "" for category in train.categories], ["\n".join(skills) for skills in train.skills], questions,
        )  # fmt: skip
        predicted = None if self.cache is None else self.cache.get(key)
        if predicted is None or predicted.shape != (len(questions), len(train.expert_ids)):
            predicted = fit().predict(rows.of(questions))
            if self.cache is not None:
                self.cache.put(key, np.asarray(predicted))
        categories = self._categories(fit, key, train, rows.of(questions)) if name == CATEGORY_ROUTER else None
        return np.asarray(predicted, np.float64), categories

    def _categories(self, fit: Callable[[], FittedRouter], key: str, train: OutcomeTable, features: Features) -> tuple[str, ...] | None:
        """What the router takes each question for, kept as places among the training questions' categories."""
        known = sorted({category for category in train.categories if category})
        places = None if self.cache is None else self.cache.get(f"{key}-categories")
        if places is not None:
            return tuple(known[int(place)] for place in places)
        found = fit().categories(features)
        if found is None:
            return None
        if self.cache is not None and set(found) <= set(known):
            self.cache.put(f"{key}-categories", np.array([known.index(category) for category in found], np.float64))
        return tuple(found)

    def _choices(self, folds: Sequence[_FoldResult], pool: OutcomeTable) -> tuple[Choice, ...]:
        """One per router, weight and test question, repeated ones included."""
        lines = []
        costs = Costs.of(pool, self.experts)
        for fold in folds:
            prices = costs.prices(fold.train)
            for name, scores in fold.expected.items():
                for weight in (None, *self.options.lambdas):
                    columns = _chosen(scores, prices, weight or 0.0)
                    lines += [
                        Choice(name, question, pool.expert_ids[column], float(scores[number, column]), weight)
                        for number, (question, column) in enumerate(zip(fold.asked, columns, strict=True))
                    ]
        return tuple(lines)

    def _report(
        self, pool: OutcomeTable, folds: Sequence[_FoldResult], answers: Answers, *, duplicates: dict[str, int], notes: list[str]
    ) -> Report:
        splits = [fold.split for fold in folds]
        judged = _judged(pool, splits)
        costs = Costs.of(pool, self.experts)
        measured = Measured(
            expert_ids=pool.expert_ids,
            scores=_scores(judged).astype(np.float64),
            costs=costs.matrix(judged),
            latency_ms=None if judged.latency_ms is None else np.array(judged.latency_ms).reshape(len(judged), -1),
            unit=costs.unit,
            groups=_groups(judged),
            parts=tuple(split.name for split in splits for _ in split.test),
        )
        best = [int(fold.train_means.argmax()) for fold in folds]
        best_columns = np.concatenate([np.full(len(fold.test), column) for fold, column in zip(folds, best, strict=True)])
        names = list(dict.fromkeys(pool.expert_ids[column] for column in best))
        arms = self._router_arms(folds, measured, costs)
        arms.append(
            measured.choice(BEST_SINGLE, best_columns, kind="baseline", note=f"chosen on the training questions: {', '.join(names)}")
        )
        arms += [random_arm(measured), oracle_arm(measured)]
        votes, unavailable = self._votes(folds, answers, measured)
        arms += votes
        shown = [arm for arm in arms if arm.kind == "router" or arm.name == BEST_SINGLE]
        return Report(
            title="Routers on measured outcomes",
            settings=self._settings(splits),
            num_questions=len(measured),
            expert_ids=pool.expert_ids,
            unit=costs.unit,
            best_single=", ".join(names),
            rows=rows_of([*arms, *single_arms(measured)], measured, seed=self.options.seed, num_resamples=self.options.num_resamples),
            unavailable=unavailable,
            oracle_gaps=tuple(oracle_gap(arm, measured) for arm in shown),
            coverage=coverage_of(pool.expert_ids, measured.scores),
            groups=group_tables([arm for arm in arms if arm.name not in {vote.name for vote in votes}], measured),
            confusions=(
                *self._confusions(folds, judged),
                *filter(None, (experts_by_category(arm, measured) for arm in shown if arm.kind == "router" and arm.lambda_ is None)),
            ),
            duplicates=duplicates,
            notes=tuple(notes),
        )

    def _router_arms(self, folds: Sequence[_FoldResult], measured: Measured, costs: Costs) -> list[Arm]:
        prices = [costs.prices(fold.train) for fold in folds]
        arms = []
        for name in folds[0].predicted:
            for weight in (None, *self.options.lambdas):
                columns = _all_chosen(folds, name, prices, weight or 0.0)
                shown = name if weight is None else f"{name} λ={weight:g}"
                arm = measured.choice(shown, columns, lambda_=weight)
                arms.append(replace(arm, curve=_curve(folds, name, prices, measured)) if weight is None else arm)
        return arms

    def _votes(self, folds: Sequence[_FoldResult], answers: Answers, measured: Measured) -> tuple[list[Arm], tuple[Unavailable, ...]]:
        if answers is None:
            return [], (NO_ANSWERS, *NO_CALLS)
        ranked = [tuple(int(column) for column in np.argsort(-fold.train_means, kind="stable")) for fold in folds]
        return vote_arms(ranked, [[answers[number] for number in fold.split.test] for fold in folds], measured), NO_CALLS

    def _confusions(self, folds: Sequence[_FoldResult], judged: OutcomeTable) -> Iterator[Confusion]:
        for name in folds[0].categories:
            seen = [fold.categories[name] for fold in folds]
            if not judged.categories or any(categories is None for categories in seen):
                continue
            predicted = [category for categories in seen for category in categories or ()]
            pairs = [(a, p) for a, p in zip(judged.categories, predicted, strict=True) if a]
            yield category_confusion(name, [a for a, _ in pairs], [p for _, p in pairs])

    def _learning(self, report: Report, splits: Sequence[Split], pool: OutcomeTable, rows: _Rows) -> tuple[LearningPoint, ...]:
        """Every router, fitted on nested random parts of the training questions."""
        single, oracle = report.row(BEST_SINGLE).accuracy, report.row("oracle").accuracy
        names = [row.name for row in report.rows if row.kind == "router" and row.lambda_ is None]
        points = []
        for step, share in enumerate(LEARNING_SHARES):
            scored: dict[str, list[Floats]] = {name: [] for name in names}
            sizes = []
            for split in splits:
                order = np.random.default_rng(self.options.seed).permutation(split.train)
                part = pool.rows(sorted(int(n) for n in order[: max(1, round(share * len(order)))]))
                sizes.append(len(part))
                test = pool.rows(split.test)
                for name in list(scored):
                    self.progress("learning curve", step, len(LEARNING_SHARES))
                    try:
                        predicted, _ = self._predicted(name, part, test.questions, rows)
                    except InvalidRequest:  # too few questions for this one: its curve begins later
                        del scored[name]
                        continue
                    scored[name].append(_scores(test)[np.arange(len(test)), predicted.argmax(axis=1)])
            points += [
                LearningPoint(
                    name, round(float(np.mean(sizes))), accuracy := mean(np.concatenate(found)), gap_closed(accuracy, single, oracle)
                )
                for name, found in scored.items()
            ]
        self.progress("learning curve", len(LEARNING_SHARES), len(LEARNING_SHARES))
        full = round(float(np.mean([len(split.train) for split in splits])))
        points += [LearningPoint(name, full, report.row(name).accuracy, report.row(name).gap_closed) for name in names]
        return tuple(sorted(points, key=lambda point: (names.index(point.name), point.num_train)))

    def _settings(self, splits: Sequence[Split]) -> dict[str, Any]:
        options = self.options
        way = "test file" if self.test is not None else "leave one task out" if options.leave_one_out else f"{len(splits)} folds"
        return {
            "split": way,
            "seed": options.seed,
            "train_questions": round(float(np.mean([len(split.train) for split in splits]))),
            "near_duplicates_from": options.near,
            "lambdas": list(options.lambdas),
            "bootstrap_samples": options.num_resamples,
            "routers_version": self.family.version,
        }


CATEGORY_ROUTER = "category"
"""The router whose categories are shown."""


@dataclass(slots=True)
class _FoldResult:
    """What was fitted on one part and expects of the other. Holds no test score."""

    split: Split
    train: OutcomeTable
    asked: tuple[str, ...]
    """The questions that routers choose for."""
    test: tuple[str, ...]
    """Those that are judged, without duplicates."""
    expected: dict[str, Floats] = field(default_factory=dict)
    """Per router (asked, E)."""
    predicted: dict[str, Floats] = field(default_factory=dict)
    """Per router (test, E)."""
    categories: dict[str, tuple[str, ...] | None] = field(default_factory=dict)

    @property
    def train_means(self) -> Floats:
        """(E) mean scores on the training questions; below all others where never measured."""
        scores = _scores(self.train)
        known = ~np.isnan(scores)
        with np.errstate(invalid="ignore"):
            means = np.where(known, scores, 0.0).sum(axis=0) / known.sum(axis=0)
        filled: Floats = np.nan_to_num(means, nan=-1.0)
        return filled


@dataclass(frozen=True, slots=True)
class _Rows:
    """The features of any of the questions, by their texts."""

    family: RouterFamily
    features: Features
    place: Mapping[str, int]

    def of(self, texts: Sequence[str]) -> Features:
        return self.family.select(self.features, [self.place[text] for text in texts])


def _agreement_notes(answers: Answers, pool: OutcomeTable) -> list[str]:
    """What a weighted vote would be told of wrong answers; nothing where no two are known."""
    found = None if answers is None else agreement(answers, _scores(pool))
    if found is None or found.share is None:
        return []
    return [f"of two experts that are wrong, {found.share:.0%} say the same ({found.num_pairs} pairs): alike of weighted_vote"]


def _measured_experts(train: Outcomes, test: Outcomes | None) -> tuple[Outcomes, Outcomes | None, list[str]]:
    """Both tables without experts that no training question has a score of: what they are worth is not known to anybody who chooses."""
    measured = (~np.isnan(_scores(train.table))).sum(axis=0)
    kept = [expert for column, expert in enumerate(train.table.expert_ids) if measured[column]]
    if len(kept) == len(train.table.expert_ids):
        return train, test, []
    left_out = [expert for expert in train.table.expert_ids if expert not in kept]
    notes = [f"{expert} is left out: no training question has a score of it" for expert in left_out]
    return train.of_experts(kept), None if test is None else test.of_experts([e for e in test.table.expert_ids if e in kept]), notes


def _judged(pool: OutcomeTable, splits: Sequence[Split]) -> OutcomeTable:
    """Every test question, in the order of the splits."""
    return pool.rows([number for split in splits for number in split.test])


def _questions(pool: OutcomeTable, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(pool.questions[number] for number in numbers)


def _scores(table: OutcomeTable) -> Floats:
    return np.frombuffer(table.scores, np.float32).reshape(len(table), len(table.expert_ids))


def _groups(table: OutcomeTable) -> dict[str, tuple[tuple[str, ...], ...]]:
    groups: dict[str, tuple[tuple[str, ...], ...]] = {}
    if table.categories:
        groups["category"] = tuple((category,) if category else () for category in table.categories)
    if table.skills:
        groups["skill"] = table.skills
    return groups


def _chosen(predicted: Floats, prices: Floats | None, weight: float) -> Ints:
    """Between equals the cheaper expert, where prices are known."""
    return penalised_choice(predicted, np.zeros(predicted.shape[1]) if prices is None else prices, weight)


def _all_chosen(folds: Sequence[_FoldResult], name: str, prices: Sequence[Floats | None], weight: float) -> Ints:
    return np.concatenate([_chosen(fold.predicted[name], price, weight) for fold, price in zip(folds, prices, strict=True)])


def _curve(folds: Sequence[_FoldResult], name: str, prices: Sequence[Floats | None], measured: Measured) -> tuple[CurvePoint, ...]:
    """Mean cost and score over all folds at every weight of one grid; empty without prices."""
    if prices[0] is None:
        return ()
    points = []
    for weight in lambda_grid(prices[0]):
        columns = _all_chosen(folds, name, prices, float(weight))
        costs, scores = measured.costs_of(columns), measured.scores_of(columns)
        known = ~np.isnan(scores)
        if costs is not None and 2 * known.sum() >= len(scores):  # of fewer answers nobody knows what such a choice is worth
            points.append(CurvePoint(float(weight), mean(costs[known]), mean(scores)))
    return tuple(points)
