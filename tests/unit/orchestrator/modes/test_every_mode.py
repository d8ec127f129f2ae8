"""What holds for every mode: the last call streams and alone sees tools, JSON stays JSON, failures, budgets, and playing it again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.budget import Budget
from domain.chat import Usage
from domain.errors import AllExpertsFailed, ConsiliumError, ExpertProtocolError, ExpertUnreachable, InvalidRequest
from domain.plan import Candidate, ExpertCall, Outcome
from domain.strategy import MODE_NAMES
from orchestrator.feedback.given import feedback_of
from orchestrator.modes.base import Ask, Told, Write
from orchestrator.modes.driver import Driver
from orchestrator.modes.play import Play, call_at, replayed
from orchestrator.recorder import TraceRecorder
from tests.fakes.workers import Fails, Says
from tests.unit.orchestrator.modes.rig import Rig
from tests.unit.orchestrator.test_pipeline import ask

ANSWERS: dict[str, Any] = {"a": "2", "b": "3", "c": "4", "weak": "9", "reader": Says("it is two")}
"""Nobody agrees, so every mode goes its whole way."""
AS_JSON = {"response_format": {"type": "json_object"}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "weather"}}]}


@pytest.mark.parametrize("mode", MODE_NAMES)
async def test_whole_and_streamed_are_the_same_answer_by_the_same_calls(mode: str) -> None:
    whole, streamed = Rig(mode, ANSWERS), Rig(mode, ANSWERS)

    assert await whole.ask() == await streamed.ask(stream=True)
    assert whole.workers.called() == streamed.workers.called()
    assert (whole.trace.aggregator, whole.trace.answered_by) == (streamed.trace.aggregator, streamed.trace.answered_by)
    told = [(call.expert_id, call.role, call.stage, call.note, call.status) for call in whole.trace.calls]
    assert told == [(call.expert_id, call.role, call.stage, call.note, call.status) for call in streamed.trace.calls]
    assert whole.trace.sequential_tokens == streamed.trace.sequential_tokens > 0


PLAN = '{"steps": [{"id": "1", "expert": "b", "input": "one"}, {"id": "2", "expert": "c", "input": "add {1}"}]}'
GONE = Fails(ExpertUnreachable("gone"))


@pytest.mark.parametrize(
    ("mode", "script", "is_own"),
    [
        ("panel", {}, False),
        ("panel", {"b": "2", "c": "2"}, True),  # nobody had to read them
        ("panel", {"reader": GONE}, True),
        ("contrast", {}, False),
        ("moa", {}, False),
        ("moa", {"b": "2", "c": "2"}, True),
        ("moa", {"a": ["1", "2"], "b": ["2", "2"], "c": ["3", "2"]}, False),  # they agree when they have read one another
        ("pdr", {}, False),
        ("chain", {}, False),
        ("chain", {"b": GONE, "c": GONE}, True),
        ("evidence", {}, False),
        ("plan", {}, True),  # there is no plan, so the best expert answers alone
        ("plan", {"reader": [PLAN, "three"]}, False),
        ("memory", {}, False),
        ("memory", {"b": "2"}, True),  # nobody had to judge them
        ("memory", {"a": ["1", "2"], "b": ["3", "2"]}, False),  # they agree when they have read one another
        ("memory", {"reader": ["FINAL ASSESSMENT: NO", "FINAL ASSESSMENT: YES"]}, True),  # the answer of the first round is right
        ("fast_slow", {}, True),
        ("fast_slow", {"reader": ["FINAL ASSESSMENT: NO", PLAN, "three"]}, False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_trace_says_whether_the_answer_is_one_experts_own(mode: str, script: dict[str, Any], is_own: bool, stream: bool) -> None:
    rig = Rig(mode, ANSWERS | script, mode_options={"redesigns": 0} if mode == "fast_slow" else {})
    await rig.ask(stream=stream)

    assert rig.trace.is_own is is_own
    taught = feedback_of(rig.trace, {"correct": True}, own_id=None, now=1.0).scores
    assert taught == ({rig.trace.answered_by: 1.0} if is_own else {})


@pytest.mark.parametrize("mode", [mode for mode in MODE_NAMES if mode != "fast_slow"])
async def test_the_last_call_streams_and_what_comes_before_is_told_as_progress(mode: str) -> None:
    rig = Rig(mode, ANSWERS)
    await rig.ask(stream=True)

    assert rig.workers.streamed == rig.workers.called()[-1:]
    assert any("answered" in text for text in rig.progress)


@pytest.mark.parametrize("mode", [mode for mode in MODE_NAMES if mode not in {"panel", "contrast", "fast_slow"}])
async def test_only_the_last_call_sees_tools_and_the_format(mode: str) -> None:
    """Of a panel every candidate may be the answer, so each sees them; so does the fast answer of ``fast_slow``."""
    rig = Rig(mode, {name: '{"n": 1}' if name == "reader" else text for name, text in ANSWERS.items()})
    await rig.ask(params={**AS_JSON, **TOOLS, "temperature": 0.5})

    *before, last = rig.workers.calls
    assert {"response_format", "tools"} <= last.params.keys()
    assert not any({"response_format", "tools"} & call.params.keys() for call in before)


@pytest.mark.parametrize("mode", [mode for mode in MODE_NAMES if mode not in {"plan", "fast_slow", "evidence"}])
@pytest.mark.parametrize("last", ["Sure, here is your JSON.", Fails(ExpertUnreachable("gone"))])
async def test_an_answer_that_has_to_be_json_is_json_when_the_last_call_writes_none(mode: str, last: Any) -> None:
    """One of the drafts happens to be what was asked for."""
    rig = Rig(mode, {"a": "prose", "b": '{"sum": 2}', "c": last if mode == "chain" else "other prose", "weak": "weak", "reader": last})

    assert json.loads(await rig.ask(params=AS_JSON)) == {"sum": 2}


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_last_call_that_fails_gives_way_to_the_best_answer_before_it(mode: str, stream: bool) -> None:
    gone = Fails(ExpertUnreachable("gone"))
    rig = Rig(mode, {**ANSWERS, "reader": gone, "c": gone if mode == "chain" else "4"})

    assert await rig.ask(stream=stream) in {"2", "3"}
    assert rig.trace.status == "ok"


@pytest.mark.parametrize("mode", MODE_NAMES)
async def test_when_everybody_fails_everybody_is_named(mode: str) -> None:
    rig = Rig(mode, dict.fromkeys((*"abc", "weak", "reader"), Fails(ExpertProtocolError("garbage"))))

    with pytest.raises(AllExpertsFailed) as caught:
        await rig.ask()
    assert {failure.expert_id for failure in caught.value.failures} >= {"a"}


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("max_calls", range(1, 9))
async def test_no_mode_makes_more_calls_than_it_may(mode: str, max_calls: int) -> None:
    rig = Rig(mode, ANSWERS)
    await rig.ask(max_calls=max_calls)

    assert 1 <= rig.trace.num_calls <= max_calls


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("max_tokens", [60, 120, 250, 500, 900])
async def test_no_mode_uses_more_tokens_than_it_may_and_what_it_has_is_told(mode: str, max_tokens: int) -> None:
    """Experts that make their answers as long as they may, and prompts that cost a token a letter."""

    def longest(call: ExpertCall) -> Says:
        length = call.params.get("max_tokens", 200)
        prompt = sum(len(str(message["content"])) for message in call.messages) // 4
        return Says(f"answer {call.expert.id}", usage=Usage(prompt, length))

    rig = Rig(mode, dict.fromkeys((*"abc", "weak", "reader"), longest))
    try:
        assert (await rig.ask(budget=Budget(max_tokens=max_tokens))).startswith("answer")
    except InvalidRequest as error:
        assert "too little for a first call" in str(error) or "has no room for an answer" in str(error)  # noqa: PT017 - either is right
    assert rig.trace.usage.total_tokens <= max_tokens


@pytest.mark.parametrize("mode", [mode for mode in MODE_NAMES if mode not in {"plan", "evidence"}])
async def test_sequential_tokens_bound_what_is_waited_for(mode: str) -> None:
    said = {name: Says(text, usage=Usage(5, 30)) for name, text in (("a", "2"), ("b", "3"), ("c", "4"), ("weak", "9"))}
    rig = Rig(mode, said)
    try:
        await rig.ask(budget=Budget(max_sequential_tokens=40))
    except ConsiliumError:
        pytest.fail("there is an answer after the first step")

    assert rig.trace.sequential_tokens == 30


@pytest.mark.parametrize("mode", [mode for mode in MODE_NAMES if mode not in {"panel", "contrast"}])
async def test_several_choices_are_refused(mode: str) -> None:
    with pytest.raises(InvalidRequest, match="n: the mode"):
        await Rig(mode, {}, "a", "b").ask(params={"n": 2})


@pytest.mark.parametrize("mode", MODE_NAMES)
async def test_a_mode_plays_the_same_from_any_moment_on(mode: str) -> None:
    """As in a batch: from the outcomes that were kept before a kill, every further call is the one that it would have been."""
    rig = Rig(mode, ANSWERS)
    request = ask("consilium/s")
    recorder = TraceRecorder(request, (), keep_text=False)
    preparation = rig.orchestrator._preparation
    prepared = await preparation.prepare(request, recorder)
    driver = Driver(prepared, recorder, rig.workers, choose_next=preparation.next_expert)
    calls: list[ExpertCall] = []
    outcomes: dict[int, Outcome] = {}
    play = Play(prepared.mode)
    while not isinstance(play.now, Told):
        if not isinstance(play.now, Ask | Write):
            play.go_on(await preparation.next_expert(prepared, play.now))
            continue
        positions, step = play.positions, play.now
        ended = await driver._outcomes(step, step.calls)
        calls += step.calls
        outcomes |= dict(zip(positions, ended, strict=True))
        play.go_on(ended)

    cards = prepared.context.snapshot.experts
    for position, call in enumerate(calls):
        kept = {at: outcome for at, outcome in outcomes.items() if at < position}
        again = call_at(replayed(prepared.mode, kept, card_of=cards.get, chosen={position: call.expert.id}), position)
        if again is not None:  # else it comes with others of its step, which are not all kept
            assert (again.expert, again.messages, again.params, again.role) == (call.expert, call.messages, call.params, call.role)
    end = replayed(prepared.mode, outcomes, card_of=cards.get).now
    assert isinstance(end, Told)
    assert end == play.now
    assert isinstance(end.answer, Candidate)
