"""Profile runs: everything is asked once, within bounds, and nothing that was answered is lost."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from domain.chat import text_of
from domain.errors import ExpertAuthFailed, ExpertTimeout, InvalidRequest, StorageError
from domain.experts import Price
from domain.plan import ExpertCall
from domain.skills import LabelledQuestion
from evaluation.profile_run import ProfileProgress, ProfileRun
from evaluation.sweep import SweepLimits
from tests.fakes.evaluation import MemoryOutcomes, make_expert, make_questions
from tests.fakes.workers import Fails, Reply, Says, ScriptedWorkers, Stalls


def add_one(call: ExpertCall) -> str:
    return str(int(text_of(call.messages[-1]).split("+")[0]) + 1)


def always_seven(_: ExpertCall) -> str:
    return "7"


async def test_every_expert_is_asked_every_question_and_graded() -> None:
    store = MemoryOutcomes()
    workers = ScriptedWorkers({"good": add_one, "poor": always_seven})
    run = ProfileRun(
        "run", [make_expert("good"), make_expert("poor")], make_questions(10, skills=("adding",)), workers=workers, store=store
    )

    report = await run.execute()

    assert report.complete
    assert report.num_asked == 20
    assert {e: (s.overall.num_correct, s.by_skill["adding"].num_answered) for e, s in report.experts.items()} == {
        "good": (10, 10),
        "poor": (1, 10),
    }
    kept = store.kept["run", "poor", "q6"]
    assert (kept.correct, kept.answer, kept.category, kept.skills, kept.error) == (True, "7", "sums", ("adding",), None)
    assert len({call.request_id for call in workers.calls}) == 20


async def test_never_more_questions_at_once_than_either_limit_allows() -> None:
    workers = ScriptedWorkers({"wide": add_one, "narrow": add_one})
    experts = [make_expert("wide"), make_expert("narrow", max_in_flight=2)]

    await ProfileRun(
        "run", experts, make_questions(30), workers=workers, store=MemoryOutcomes(), limits=SweepLimits(max_in_flight=5)
    ).execute()

    assert workers.max_in_flight == {"wide": 5, "narrow": 2}


async def test_no_more_experts_at_once_than_allowed() -> None:
    workers = ScriptedWorkers({"a": Stalls(Says("1")), "b": add_one})
    limits = SweepLimits(max_experts=1)
    run = ProfileRun("run", [make_expert("a"), make_expert("b")], make_questions(2), workers=workers, store=MemoryOutcomes(), limits=limits)
    task = asyncio.create_task(run.execute())
    await workers.until_started("a", 2)

    assert workers.calls_to("b") == []

    workers.release("a")
    await task
    assert len(workers.calls_to("b")) == 2


async def test_a_failed_question_counts_as_no_answer_and_is_asked_again_on_resume() -> None:
    store = MemoryOutcomes()
    questions = make_questions(3)
    flaky = ScriptedWorkers({"a": ["1", Fails(ExpertTimeout("slow")), "3"]})
    first = await ProfileRun("run", [make_expert("a", max_in_flight=1)], questions, workers=flaky, store=store).execute()

    assert (first.experts["a"].overall.num_answered, first.experts["a"].num_failed, first.complete) == (2, 1, False)
    assert store.kept["run", "a", "q1"].error == "expert_timeout: slow"

    again = ScriptedWorkers({"a": ["2"]})
    second = await ProfileRun("run", [make_expert("a")], questions, workers=again, store=store).execute()

    assert [text_of(call.messages[-1]) for call in again.calls] == ["1+1?"]
    assert (second.experts["a"].overall.num_correct, second.num_asked, second.complete) == (3, 1, True)


async def test_what_an_older_card_answered_is_asked_again_on_resume() -> None:
    store, questions, card = MemoryOutcomes(), make_questions(3), make_expert("a")
    await ProfileRun("run", [card], questions[:2], workers=ScriptedWorkers({"a": always_seven}), store=store).execute()
    priced = dataclasses.replace(card, price=Price(1.0, 1.0))
    same = await ProfileRun("run", [priced], questions[:2], workers=ScriptedWorkers({"a": add_one}), store=store).execute()
    other = dataclasses.replace(card, model="another")
    report = await ProfileRun("run", [other], questions, workers=ScriptedWorkers({"a": add_one}), store=store).execute()

    assert (same.num_asked, report.num_asked, report.experts["a"].overall.num_correct) == (0, 3, 3)
    assert store.kept["run", "a", "q0"].expert_fingerprint == other.fingerprint


async def test_answers_of_another_run_do_not_count() -> None:
    store = MemoryOutcomes()
    questions = make_questions(2)
    await ProfileRun("old", [make_expert("a")], questions, workers=ScriptedWorkers({"a": always_seven}), store=store).execute()

    report = await ProfileRun("new", [make_expert("a")], questions, workers=ScriptedWorkers({"a": add_one}), store=store).execute()

    assert (report.num_asked, report.experts["a"].overall.num_correct) == (2, 2)


async def test_an_expert_that_keeps_failing_is_given_up_and_the_others_go_on() -> None:
    workers = ScriptedWorkers({"down": Fails(ExpertTimeout("no answer")), "up": add_one})
    experts = [make_expert("down", max_in_flight=1), make_expert("up")]
    limits = SweepLimits(max_consecutive_failures=3)

    report = await ProfileRun("run", experts, make_questions(20), workers=workers, store=MemoryOutcomes(), limits=limits).execute()

    assert report.stopped == {"down": "3 failures in a row, the last: no answer"}
    assert len(workers.calls_to("down")) == 3
    assert report.experts["up"].overall.num_correct == 20


async def test_failures_that_an_answer_interrupts_give_up_no_expert() -> None:
    turns: list[str | Reply] = ["1" if n % 3 == 2 else Fails(ExpertTimeout("slow")) for n in range(12)]
    limits = SweepLimits(max_consecutive_failures=3)

    report = await ProfileRun(
        "run",
        [make_expert("a", max_in_flight=1)],
        make_questions(12),
        workers=ScriptedWorkers({"a": turns}),
        store=MemoryOutcomes(),
        limits=limits,
    ).execute()

    assert report.stopped == {}
    assert report.experts["a"].num_failed == 8


async def test_wrong_credentials_give_up_an_expert_at_once() -> None:
    workers = ScriptedWorkers({"a": Fails(ExpertAuthFailed("OPENAI_API_KEY is not set"))})

    report = await ProfileRun(
        "run", [make_expert("a", max_in_flight=1)], make_questions(5), workers=workers, store=MemoryOutcomes()
    ).execute()

    assert report.stopped == {"a": "OPENAI_API_KEY is not set"}
    assert len(workers.calls) == 1


async def test_cancelling_ends_the_calls_and_keeps_what_was_answered() -> None:
    store = MemoryOutcomes()
    workers = ScriptedWorkers({"a": ["1", "2", Stalls()]})
    task = asyncio.create_task(
        ProfileRun("run", [make_expert("a", max_in_flight=1)], make_questions(9), workers=workers, store=store).execute()
    )
    await workers.until_started("a", 3)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(question for _, _, question in store.kept) == ["q0", "q1"]
    assert workers.cancelled == ["a"]
    assert not any(workers.in_flight.values())


async def test_a_store_that_fails_ends_the_run_and_a_later_write_keeps_the_batch() -> None:
    store = MemoryOutcomes()
    store.failures = [StorageError("disk full")]
    run = ProfileRun(
        "run", [make_expert("a", max_in_flight=1)], make_questions(6), workers=ScriptedWorkers({"a": add_one}), store=store, flush_every=2
    )

    with pytest.raises(StorageError, match="disk full"):
        await run.execute()
    assert sorted(question for _, _, question in store.kept) == ["q0", "q1"]


async def test_outcomes_are_written_in_batches() -> None:
    store = MemoryOutcomes()

    await ProfileRun(
        "run", [make_expert("a", max_in_flight=1)], make_questions(7), workers=ScriptedWorkers({"a": add_one}), store=store, flush_every=3
    ).execute()

    assert store.batches == [3, 3, 1]


async def test_progress_is_told_after_every_answer_and_counts_earlier_ones() -> None:
    store = MemoryOutcomes()
    questions = make_questions(4)
    await ProfileRun("run", [make_expert("a")], questions[:2], workers=ScriptedWorkers({"a": add_one}), store=store).execute()
    told: list[ProfileProgress] = []

    await ProfileRun(
        "run",
        [make_expert("a", max_in_flight=1)],
        questions,
        workers=ScriptedWorkers({"a": always_seven}),
        store=store,
        on_progress=told.append,
    ).execute()

    assert [(p.num_done, p.num_total, p.num_correct) for p in told] == [(2, 4, 2), (3, 4, 2), (4, 4, 2)]


async def test_sampling_of_the_card_is_sent_and_the_run_may_override_it() -> None:
    workers = ScriptedWorkers({"a": add_one})
    card = dataclasses.replace(make_expert("a"), sampling={"temperature": 0, "top_p": 0.9})

    await ProfileRun("run", [card], make_questions(1), workers=workers, store=MemoryOutcomes(), params={"temperature": 0.7}).execute()

    assert workers.calls[0].params == {"temperature": 0.7, "top_p": 0.9}


def test_what_cannot_be_measured_is_refused_before_any_call() -> None:
    store, workers = MemoryOutcomes(), ScriptedWorkers({})
    judged = LabelledQuestion(id="j", question="Why?", answer="because", grader="judge")

    with pytest.raises(InvalidRequest, match="no expert to measure"):
        ProfileRun("run", [], make_questions(1), workers=workers, store=store)
    with pytest.raises(InvalidRequest, match="no question to measure"):
        ProfileRun("run", [make_expert("a")], [], workers=workers, store=store)
    with pytest.raises(InvalidRequest, match="expert 'a' is named 2 times"):
        ProfileRun("run", [make_expert("a"), make_expert("a")], make_questions(1), workers=workers, store=store)
    with pytest.raises(InvalidRequest, match="question 'j': grader 'judge' needs an expert"):
        ProfileRun("run", [make_expert("a")], [judged], workers=workers, store=store)
