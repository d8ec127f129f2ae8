"""The aggregator benchmark: one right and two wrong answers, who finds the right one?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from domain.chat import Message, text_of
from domain.errors import ExpertTimeout, InvalidRequest
from domain.evaluation import AggregatorOutcome, QuestionOutcome
from domain.experts import ExpertRole
from domain.plan import CallRole, ExpertCall
from evaluation.aggregator_benchmark import AggregatorBenchmark, build_items
from evaluation.sweep import SweepLimits
from tests.fakes.evaluation import make_expert, make_questions
from tests.fakes.workers import Fails, ScriptedWorkers

AGGREGATOR = frozenset({ExpertRole.AGGREGATOR})


def outcomes_of(question_id: str, **answers: tuple[str, bool]) -> list[QuestionOutcome]:
    return [QuestionOutcome(expert, question_id, answer=answer, correct=correct) for expert, (answer, correct) in answers.items()]


def three_answers(num_questions: int) -> list[QuestionOutcome]:
    """One right and two wrong answers to each of ``make_questions``."""
    return [
        outcome
        for n in range(num_questions)
        for outcome in outcomes_of(f"q{n}", a=(str(n + 1), True), b=(str(n + 50), False), c=(str(n + 70), False))
    ]


def build_messages(messages: Sequence[Message], answers: Sequence[str], template: str) -> Sequence[Message]:
    return [{"role": "user", "content": f"{template}|{text_of(messages[-1])}|{'|'.join(answers)}"}]


def smallest(call: ExpertCall) -> str:
    return min(text_of(call.messages[-1]).split("|")[2:], key=int)


def test_an_item_has_one_right_and_two_wrong_answers_of_different_experts() -> None:
    [item] = build_items(make_questions(1), three_answers(1))

    assert sorted(item.answers) == ["1", "50", "70"]


def test_answers_are_shuffled_and_the_seed_fixes_how() -> None:
    questions, outcomes = make_questions(40), three_answers(40)

    items = build_items(questions, outcomes, seed=3)

    assert items == build_items(questions, list(reversed(outcomes)), seed=3)
    assert items != build_items(questions, outcomes, seed=4)
    assert {item.answers.index(item.question.answer) for item in items} == {0, 1, 2}


def test_an_item_does_not_depend_on_the_other_questions() -> None:
    assert build_items(make_questions(9), three_answers(9))[5:6] == build_items(make_questions(9)[5:6], three_answers(9))


def test_questions_without_a_right_or_two_wrong_answers_are_left_out() -> None:
    outcomes = [
        *outcomes_of("q0", a=("x", False), b=("y", False), c=("z", False)),
        *outcomes_of("q1", a=("2", True), b=("y", False), c=("", False)),
        QuestionOutcome("d", "q1", answer="z", error="expert_timeout: slow"),
    ]

    assert build_items(make_questions(2), outcomes) == []
    [item] = build_items(make_questions(2), outcomes, min_wrong=1)
    assert sorted(item.answers) == ["", "2", "y"]


def test_of_one_experts_several_runs_the_last_answer_counts() -> None:
    outcomes = [*outcomes_of("q0", a=("1", True), b=("y", False)), *outcomes_of("q0", b=("z", False), a=("w", False), c=("1", True))]

    [item] = build_items(make_questions(1), outcomes)

    assert sorted(item.answers) == ["1", "w", "z"]


def test_each_category_can_be_capped() -> None:
    questions = make_questions(3) + [q for q in make_questions(6, category="other") if q.id in ("q3", "q4", "q5")]

    items = build_items(questions, three_answers(6), max_per_category=2)

    assert [item.question.id for item in items] == ["q0", "q1", "q3", "q4"]


async def test_only_aggregators_are_asked_and_profiles_count_per_category() -> None:
    workers = ScriptedWorkers({"wise": smallest, "dull": "7"})
    experts = [make_expert("wise", roles=AGGREGATOR, prompt="compact"), make_expert("dull", roles=AGGREGATOR), make_expert("plain")]
    told: list[AggregatorOutcome] = []
    benchmark = AggregatorBenchmark(
        experts, build_items(make_questions(8), three_answers(8)), build_messages=build_messages, workers=workers, on_progress=told.append
    )

    report = await benchmark.execute()

    wise, dull = report.profiles["wise"], report.profiles["dull"]
    assert (wise.overall.num_correct, wise.by_category["sums"].num_answered) == (8, 8)
    assert (dull.overall.num_correct, dull.overall.num_answered) == (1, 8)
    assert set(report.profiles) == {"wise", "dull"}
    assert (len(told), report.num_items) == (16, 8)
    asked = workers.calls_to("wise")[0]
    assert (asked.role, text_of(asked.messages[0]).split("|")[0]) == (CallRole.AGGREGATOR, "compact")


async def test_a_failing_aggregator_is_given_up_and_gets_no_profile() -> None:
    workers = ScriptedWorkers({"down": Fails(ExpertTimeout("slow"))})
    items = build_items(make_questions(9), three_answers(9))
    expert = make_expert("down", roles=AGGREGATOR, max_in_flight=1)
    limits = SweepLimits(max_consecutive_failures=2)

    report = await AggregatorBenchmark([expert], items, build_messages=build_messages, workers=workers, limits=limits).execute()

    assert report.profiles == {}
    assert report.stopped == {"down": "2 failures in a row, the last: slow"}
    assert [outcome.error for outcome in report.outcomes] == ["expert_timeout: slow"] * 2


def test_nothing_to_measure_is_refused_with_what_to_do() -> None:
    items = build_items(make_questions(1), three_answers(1))

    with pytest.raises(InvalidRequest, match="no expert has the role 'aggregator'"):
        AggregatorBenchmark([make_expert("plain")], items, build_messages=build_messages, workers=ScriptedWorkers({}))
    with pytest.raises(InvalidRequest, match="profile more experts first"):
        AggregatorBenchmark([make_expert("a", roles=AGGREGATOR)], [], build_messages=build_messages, workers=ScriptedWorkers({}))
