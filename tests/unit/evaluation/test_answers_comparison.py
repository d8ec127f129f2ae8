"""Strategies and baselines on answers that a script gives."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.answers.asking import MAX_FAILURES_IN_A_ROW, Ask, Questioner, Way
from evaluation.answers.comparison import AnswersComparison, AnswersOptions, ExpertInfo
from evaluation.answers.judging import AskedJudge
from evaluation.answers.replies import Call, Reply, ReplyLog
from evaluation.comparison.report import as_json
from evaluation.graders import Grader

QUESTIONS = [LabelledQuestion(f"q{n}", f"{topic} {n}?", str(n), category=topic) for n in range(10) for topic in ("sums", "dates")]
ADDER, HISTORIAN = ExpertInfo("adder", "1", parameters_b=1.0), ExpertInfo("historian", "1", parameters_b=2.0)
DUNCE, FUSER = ExpertInfo("dunce", "1", parameters_b=1.0), ExpertInfo("fuser", "1", parameters_b=4.0, aggregation_prompt="compact")


@dataclass
class ScriptedAsker:
    """*adder* knows sums, *historian* dates and is sure of every other sum when sampled; *fuser* repeats the first answer it reads."""

    asked: list[Ask] = field(default_factory=list)
    down: frozenset[str] = frozenset()
    in_flight: int = 0
    most_in_flight: int = 0

    async def ask(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if ask.model in self.down:
            return Reply(error=f"{ask.model} is down")
        text = str(ask.messages[-1]["content"])
        topic, number = text.splitlines()[0].removesuffix("?").split(" ")
        if ask.model == "fuser":
            return Reply(text.splitlines()[1].partition(": ")[2], (Call("fuser", 10),), 5.0, "fuser")
        expert = ask.model.removeprefix("consilium/")
        if expert == "auto":
            expert = "adder" if topic == "sums" else "historian"
        knows = {"adder": topic == "sums", "historian": topic == "dates", "dunce": False}[expert]
        if expert == "historian" and topic == "sums" and "temperature" in ask.params:
            knows = (int(ask.params["seed"]) + int(number)) % 2 == 0
        return Reply(number if knows else "no idea", (Call(expert, 100),), 10.0, expert)


def questioner(asker: ScriptedAsker, log: Path | None = None) -> Questioner:
    kept = ReplyLog(log)
    kept.open()
    return Questioner(asker, kept, Grader(), concurrency=4)


def comparison(asker: ScriptedAsker, log: Path | None = None, **given: Any) -> AnswersComparison:
    whole: dict[str, Any] = {
        "experts": [ADDER, HISTORIAN, DUNCE],
        "strategies": [Way("auto", "auto", "1")],
        "aggregator": FUSER,
        "options": AnswersOptions(calls=(3,), num_resamples=50),
        "profile": {"historian": 0.6, "adder": 0.5, "dunce": 0.1},
    }
    return AnswersComparison(questioner(asker, log), QUESTIONS, **{**whole, **given})


async def test_a_strategy_is_put_beside_every_baseline_at_equal_numbers_of_calls() -> None:
    asker = ScriptedAsker()

    report = await comparison(asker).execute()

    assert [row.name for row in report.rows] == [
        "auto", "best single", "random expert", "oracle", "majority vote of 3", "self-consistency × 3", "self-MoA, 3 calls",
        "fixed top-2 MoA, 3 calls", "adder", "historian", "dunce",
    ]  # fmt: skip
    accuracy = {row.name: row.accuracy for row in report.rows}
    assert (accuracy["auto"], accuracy["best single"], accuracy["oracle"]) == (1.0, 0.5, 1.0)
    assert accuracy["random expert"] == pytest.approx(1 / 3)
    assert accuracy["fixed top-2 MoA, 3 calls"] == accuracy["historian"], "the fuser repeats who comes first, the best of the profile"
    assert {row.calls for row in report.rows if "3" in row.name} == {3.0}
    assert report.row("auto").gap_closed == 1.0
    assert report.unit == "billion parameters × tokens"
    assert report.row("auto").cost == pytest.approx(150.0)
    assert report.row("fixed top-2 MoA, 3 calls").cost == pytest.approx(200.0 + 100.0 + 40.0)
    assert report.row("fixed top-2 MoA, 3 calls").latency_ms == pytest.approx(15.0)
    assert report.coverage.recommended == ("adder", "historian")


async def test_baselines_get_as_many_calls_as_the_strategies_make() -> None:
    """A panel of two with a synthesis is put beside votes and mixtures of three calls, a single expert beside nothing of that kind."""

    class Panel(ScriptedAsker):
        async def ask(self, ask: Ask) -> Reply:
            reply = await super().ask(replace(ask, model="adder") if ask.model == "panel" else ask)
            return replace(reply, calls=(Call("adder", 1),) * 4, expert=None) if ask.model == "panel" else reply

    several = await comparison(
        Panel(), strategies=[Way("auto", "auto", "1"), Way("panel", "panel", "1")], options=AnswersOptions()
    ).execute()
    single = await comparison(ScriptedAsker(), options=AnswersOptions()).execute()

    assert several.settings["calls"] == [4]
    assert {row.calls for row in several.rows if "4" in row.name} == {4.0}
    assert single.settings["calls"] == [3]


async def test_samples_differ_by_seed_and_are_voted_on() -> None:
    asker = ScriptedAsker()

    await comparison(asker).execute()

    sampled = [ask for ask in asker.asked if "temperature" in ask.params]
    assert {ask.model for ask in sampled} == {"historian"}
    assert len({ask.params["seed"] for ask in sampled}) == 3
    assert len(sampled) == 3 * len(QUESTIONS)


async def test_without_profiles_halves_rank_for_each_other() -> None:
    report = await comparison(ScriptedAsker(), profile=None).execute()

    assert set(report.best_single.split(", ")) <= {"adder", "historian"}
    assert "other half" in report.row("best single").note


async def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    """A second run answers from the log; a changed card or a damaged line is asked again."""
    log = tmp_path / "answers.jsonl"
    first, second, third = ScriptedAsker(), ScriptedAsker(), ScriptedAsker()

    one = await comparison(first, log).execute()
    other = await comparison(second, log).execute()
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]) + lines[-1][:20])
    await comparison(third, log, experts=[ADDER, HISTORIAN, ExpertInfo("dunce", "2", parameters_b=1.0)]).execute()

    assert second.asked == []
    assert as_json(one) == as_json(other)
    assert {ask.model for ask in third.asked} == {"dunce", "fuser"}
    assert len(first.asked) == len(lines)


async def test_failures_are_kept_by_question_and_asked_again(tmp_path: Path) -> None:
    log = tmp_path / "answers.jsonl"

    report = await comparison(ScriptedAsker(down=frozenset({"auto"})), log).execute()
    healed = await comparison(ScriptedAsker(), log).execute()

    assert (report.row("auto").accuracy, report.row("auto").num_failed) == (0.0, 20)
    assert any(note.startswith("auto did not answer 20 of 20 questions, most often: ") and "auto is down" in note for note in report.notes)
    assert not any("did not answer" in note for note in healed.notes)
    assert (healed.row("auto").accuracy, healed.row("auto").num_failed) == (1.0, 0)


async def test_who_is_down_is_asked_no_more() -> None:
    asker = ScriptedAsker(down=frozenset({"adder"}))
    many = [LabelledQuestion(f"q{n}", f"sums {n}?", str(n)) for n in range(100)]

    found = await questioner(asker).ask_all(Way("adder", "adder", "1"), many)

    assert MAX_FAILURES_IN_A_ROW <= len(asker.asked) < MAX_FAILURES_IN_A_ROW + 4
    assert len(found) == 100
    assert "given up after" in str(found[-1].reply.error)


async def test_no_more_than_so_many_at_once() -> None:
    asker = ScriptedAsker()

    await comparison(asker).execute()

    assert 1 < asker.most_in_flight <= 4


async def test_interrupted_it_keeps_what_was_answered(tmp_path: Path) -> None:
    log = tmp_path / "answers.jsonl"

    class Slow(ScriptedAsker):
        async def ask(self, ask: Ask) -> Reply:
            if len(self.asked) >= 10:
                await asyncio.Event().wait()
            return await super().ask(ask)

    running = asyncio.create_task(comparison(Slow(), log).execute())
    while not log.exists() or log.read_text().count("\n") < 10:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    again = ScriptedAsker()
    await comparison(again, log).execute()
    whole = ScriptedAsker()
    await comparison(whole).execute()

    assert len(again.asked) == len(whole.asked) - 10


async def test_what_cannot_be_run_says_why() -> None:
    report = await comparison(ScriptedAsker(), aggregator=None, options=AnswersOptions(calls=(2, 5), num_resamples=20)).execute()

    assert {missing.name: missing.why for missing in report.unavailable} == {
        "self-MoA, 2 calls": "no expert has the role of an aggregator",
        "fixed top-1 MoA, 2 calls": "no expert has the role of an aggregator",
        "majority vote of 5": "there are only 3 experts",
        "self-MoA, 5 calls": "no expert has the role of an aggregator",
        "fixed top-4 MoA, 5 calls": "no expert has the role of an aggregator",
    }


async def test_nothing_to_compare_is_refused() -> None:
    judged = [LabelledQuestion("q", "?", "x", grader="judge")]
    with pytest.raises(InvalidRequest, match="nothing to compare"):
        await comparison(ScriptedAsker(), experts=[]).execute()
    with pytest.raises(InvalidRequest, match="judge"):
        await AnswersComparison(questioner(ScriptedAsker()), judged, [ADDER], []).execute()


# --- a judge ----------------------------------------------------------------------------------------------------------------------

ESSAYS = [LabelledQuestion(f"e{n}", f"{topic} {n}?", f"about {n}", grader="judge") for n in range(6) for topic in ("sums", "dates")]


@dataclass
class JudgedAsker(ScriptedAsker):
    """With *judge*, who takes a number for the essay about it, and has nothing to say of answers to number 3."""

    async def ask(self, ask: Ask) -> Reply:
        if ask.model != "judge" or "judge" in self.down:
            return await super().ask(ask)
        self.asked.append(ask)
        said = str(ask.messages[-1]["content"])
        reference, answer = (said.partition(f"<{tag}>\n")[2].partition("\n")[0] for tag in ("reference", "answer"))
        verdict = "perhaps" if reference.endswith("3") else "yes" if reference.endswith(answer) else "no"
        return Reply(verdict, (Call("judge", 12, 10),), 1.0, "judge")


def judged_comparison(asker: ScriptedAsker, log: Path | None = None, **given: Any) -> AnswersComparison:
    kept = ReplyLog(log)
    kept.open()
    judge = AskedJudge(asker, kept, "judge", "1", {"top_p": 0.5})
    whole: dict[str, Any] = {
        "experts": [ADDER, HISTORIAN],
        "strategies": [Way("auto", "auto", "1")],
        "aggregator": FUSER,
        "options": AnswersOptions(calls=(2,), num_resamples=20),
        "profile": {"historian": 0.6, "adder": 0.5},
    }
    return AnswersComparison(Questioner(asker, kept, Grader(judge), concurrency=4), ESSAYS, judge=judge, **{**whole, **given})


async def test_a_judges_calls_are_told_apart_and_what_it_cannot_say_counts_for_nothing(tmp_path: Path) -> None:
    asker = JudgedAsker()

    report = await judged_comparison(asker, tmp_path / "log.jsonl").execute()

    verdicts = [ask for ask in asker.asked if ask.model == "judge"]
    assert {(ask.params["temperature"], ask.params["top_p"]) for ask in verdicts} == {(0, 0.5)}
    assert (report.row("auto").accuracy, report.row("adder").accuracy) == (1.0, 0.5)
    assert (report.row("auto").num_unknown, report.row("auto").num_failed, report.row("auto").calls) == (2, 0, 1.0)
    assert report.row("auto").cost == pytest.approx(150.0), "what the judge takes is nobody's cost"
    assert report.judged is not None
    assert report.judged.num_asked == len(verdicts)
    assert report.judged.num_unreadable > 0
    assert (report.judged.prompt_tokens, report.judged.completion_tokens) == (10 * len(verdicts), 2 * len(verdicts))
    assert any("could not be read" in note for note in report.notes)


async def test_a_verdict_is_asked_for_once_for_the_same_answer(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    first, second = JudgedAsker(), JudgedAsker()

    one = await judged_comparison(first, log).execute()
    other = await judged_comparison(second, log).execute()

    said = [str(ask.messages) for ask in first.asked if ask.model == "judge"]
    assert len(said) == len(set(said))
    assert second.asked == []
    assert other.judged is not None
    assert other.judged.num_asked == 0
    assert [row.accuracy for row in one.rows] == [row.accuracy for row in other.rows]


async def test_a_judge_that_is_down_is_asked_no_more_and_nothing_counts_as_wrong_for_it() -> None:
    asker = JudgedAsker(down=frozenset({"judge"}))

    report = await judged_comparison(asker).execute()

    assert sum(ask.model == "judge" for ask in asker.asked) < MAX_FAILURES_IN_A_ROW + 4
    assert report.row("auto").num_unknown == len(ESSAYS)
    assert math.isnan(report.row("auto").accuracy)
    assert report.judged is not None
    assert report.judged.num_failed >= MAX_FAILURES_IN_A_ROW
    assert json.dumps(as_json(report), allow_nan=False)


async def test_a_judge_that_judges_itself_or_nobody_is_told() -> None:
    own = await judged_comparison(JudgedAsker(), experts=[ADDER, ExpertInfo("judge", "1", parameters_b=1.0)], profile=None).execute()
    log = ReplyLog(None)
    unneeded = await comparison(ScriptedAsker(), judge=AskedJudge(ScriptedAsker(), log, "judge", "1")).execute()

    assert "judge judges its own answers too" in own.notes
    assert "the judge judge was not needed" in unneeded.notes


def test_a_log_that_was_cut_off_loses_the_half_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    kept = Reply("42", (Call("a", 1),))
    log = ReplyLog(path)
    log.put("first", kept)
    log.put("cut", kept)
    path.write_bytes(path.read_bytes()[:-9])
    for key in ("second", "third"):
        ReplyLog(path).put(key, kept)

    again = ReplyLog(path)
    again.open()
    assert [again.get(key) for key in ("first", "cut", "second", "third")] == [kept, None, kept, kept]


def test_a_large_log_loses_its_older_half(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    log = ReplyLog(path)
    for number in range(100):
        log.put(f"key {number}", Reply("x" * 100, (Call("a", 1),)))

    small = ReplyLog(path, max_bytes=path.stat().st_size // 2)
    small.open()

    assert small.get("key 0") is None
    assert small.get("key 99") == Reply("x" * 100, (Call("a", 1),))
    assert path.stat().st_size <= small.max_bytes
