"""Cascades on the request's path, with scripted experts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from domain.cascade import CascadeRule
from domain.chat import Choice
from domain.deadline import Deadline
from domain.errors import AllExpertsFailed, ExpertProtocolError, ExpertUnreachable, InvalidRequest, NoEligibleExpert
from domain.experts import Capability, ExpertRole, HealthState
from domain.plan import CallRole, Candidate
from domain.routing import RoutingDecision
from orchestrator.answer import Progress
from orchestrator.cascade.ladder import Accepted, Ask, make_ladder, next_step
from orchestrator.dispatch import run_call
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import CascadingRouter, FakeDirectory, KeptTraces, card
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls
from tests.unit.orchestrator.test_pipeline import ask
from tests.unit.orchestrator.test_stream import collect

CARDS = (card("small"), card("middle"), card("large"), card("judge", roles=frozenset({ExpertRole.AGGREGATOR})))
AGREEMENT, JUDGE, LOGPROB = CascadeRule(), CascadeRule("judge", judge_expert="judge"), CascadeRule("logprob", threshold=0.8)


class Setup:
    def __init__(self, rule: CascadeRule, script: Mapping[str, Any], *selected: str) -> None:
        self.workers, self.sink, self.directory = ScriptedWorkers(script), KeptTraces(), FakeDirectory(CARDS)
        routers = {"skills": CascadingRouter(rule, *(selected or ("small", "large")))}
        self.orchestrator = Orchestrator(directory=self.directory, routers=routers, workers=self.workers, sinks=[self.sink])

    @property
    def trace(self):
        (trace,) = self.sink.traces
        return trace


def samples(*texts: str) -> list[Any]:
    return list(texts)


async def test_samples_that_agree_are_the_answer_and_nobody_else_is_asked() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "2.", "The answer is 2")})

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "2"
    assert setup.workers.called() == ["small"] * 3
    assert setup.trace.aggregator == "cascade:small"
    assert setup.trace.answered_by == "small"
    assert [(call.stage, call.confidence) for call in setup.trace.calls] == [(1, 1.0)] * 3
    assert setup.trace.calls[0].note == "accepted: confidence 1.00 (3 of 3 samples agree), 0.5 needed"
    assert answer.usage.total_tokens == 3 * 8


async def test_samples_differ_in_seed_and_temperature_but_the_first_is_as_asked() -> None:
    setup = Setup(AGREEMENT, {"small": "2"})
    await setup.orchestrator.run(ask())
    first, second, third = (call.params for call in setup.workers.calls)

    assert dict(first) == {}
    assert (second["seed"], third["seed"]) == (1, 2)
    assert second["temperature"] == third["temperature"] == 0.7


async def test_samples_that_disagree_lead_to_the_next_expert_and_the_trace_says_why() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "3", "4"), "large": "5"})

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "5"
    assert setup.workers.called() == ["small", "small", "small", "large"]
    assert setup.trace.calls[0].note == "confidence 0.00 (1 of 3 samples agree) below 0.5, so the next expert was asked"
    assert (setup.trace.calls[3].stage, setup.trace.calls[3].confidence) == (2, None)
    assert setup.trace.calls[3].note == "accepted: nobody is left to ask"
    assert "large: accepted" in str(setup.trace.aggregator_reason)


@pytest.mark.parametrize(
    ("verdict", "expert"), [("FINAL ASSESSMENT: YES", "small"), ("FINAL ASSESSMENT: NO", "large"), ("Well...", "large")]
)
async def test_a_judge_decides_and_a_verdict_that_cannot_be_read_is_a_no(verdict: str, expert: str) -> None:
    setup = Setup(JUDGE, {"small": "2", "judge": verdict, "large": "3"})

    answer = await setup.orchestrator.run(ask(params={"temperature": 0.3, "max_tokens": 5}))

    assert setup.trace.answered_by == expert
    assert [call.role for call in setup.trace.calls][:2] == [CallRole.CANDIDATE, CallRole.JUDGE]
    (judged,) = setup.workers.calls_to("judge")
    assert "How much is 1 + 1?" in judged.messages[-1]["content"]
    assert dict(judged.params) == {}
    assert answer.trace.num_calls == (2 if expert == "small" else 3)


async def test_a_judge_that_fails_costs_no_answer() -> None:
    setup = Setup(JUDGE, {"small": "2", "judge": Fails(ExpertUnreachable("refused")), "large": "3"})

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "3"
    assert "the judge judge failed (refused)" in str(setup.trace.calls[0].note)


async def test_log_probabilities_are_asked_for_where_they_are_needed() -> None:
    setup = Setup(LOGPROB, {"small": "2", "large": "3"})
    answer = await setup.orchestrator.run(ask())

    assert setup.workers.calls_to("small")[0].params["logprobs"] is True
    assert "logprobs" not in setup.workers.calls_to("large")[0].params
    assert answer.choices[0].text == "3", "nobody told any, so nothing was sure"


@pytest.mark.parametrize("wanted", [True, False])
def test_log_probabilities_are_passed_on_only_to_who_asked_for_them(wanted: bool) -> None:
    request = ask(params={"logprobs": True} if wanted else {})
    cards = {known.id: known for known in CARDS}
    made = make_ladder(request, RoutingDecision("cascade", ("small", "large")), LOGPROB, cards, deadline=Deadline.after(5), max_calls=8)
    told = {"content": [{"token": "2", "logprob": -0.1}]}

    step = next_step(made, {0: Candidate("small", (Choice({"role": "assistant", "content": "2"}, logprobs=told),))})

    assert isinstance(step, Accepted)
    assert step.answer.choices[0].logprobs == (told if wanted else None)
    assert step.why == "small: accepted: confidence 0.90 (mean log-probability -0.100 over 1 tokens), 0.8 needed"


async def test_an_expert_that_fails_gives_way_to_the_next() -> None:
    setup = Setup(AGREEMENT, {"small": Fails(ExpertUnreachable("refused")), "large": "3"})

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "3"
    assert setup.trace.calls[0].note == "it failed (refused), so the next expert was asked"


async def test_when_the_last_expert_fails_the_surest_answer_before_it_stands() -> None:
    script = {"small": samples("2", "2", "3"), "middle": samples("4", "5", "6"), "large": Fails(ExpertProtocolError("half a stream"))}
    setup = Setup(replace(AGREEMENT, threshold=0.9), script, "small", "middle", "large")

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "2"
    assert setup.trace.aggregator == "cascade:small (fallback)"
    assert setup.trace.status == "ok"


async def test_the_request_fails_when_everybody_does() -> None:
    setup = Setup(AGREEMENT, dict.fromkeys(("small", "large"), Fails(ExpertProtocolError("garbage"))))

    with pytest.raises(AllExpertsFailed, match=r"small.*large"):
        await setup.orchestrator.run(ask())


async def test_an_expert_whose_circuit_is_open_at_the_call_gives_way() -> None:
    setup = Setup(AGREEMENT, {"large": "3", "middle": "2"})
    setup.directory.begin_call = lambda expert_id: None if expert_id in {"small", "large"} else 1  # type: ignore[method-assign]
    setup.directory.health = {"judge": HealthState.OPEN}

    with pytest.raises(NoEligibleExpert):
        await setup.orchestrator.run(ask())  # no other expert has a score


@pytest.mark.parametrize(
    ("max_calls", "called"),
    [(1, ["large"]), (2, ["large"]), (3, ["large"]), (4, ["small"] * 3 + ["large"]), (7, ["small"] * 3 + ["middle"] * 3 + ["large"])],
)
async def test_max_calls_shortens_the_cascade_from_its_middle(max_calls: int, called: list[str]) -> None:
    """What is left ends with the best expert: one answer that nobody judges has to be the likeliest to be right."""
    script = {"small": samples("1", "2", "3"), "middle": samples("4", "5", "6"), "large": "7"}
    setup = Setup(AGREEMENT, script, "small", "middle", "large")

    answer = await setup.orchestrator.run(ask(options=replace(ask().options, max_calls=max_calls)))

    assert setup.workers.called() == called
    assert answer.trace.num_calls <= max_calls
    assert ("Note: max_calls" in answer.trace.decision.reason) is (max_calls < 7)


async def test_several_choices_cannot_be_compared() -> None:
    setup = Setup(AGREEMENT, {"small": "2"})
    able = [card(name, capabilities=frozenset({Capability.MULTIPLE_CHOICES})) for name in ("small", "large")]
    setup.orchestrator = Orchestrator(
        directory=FakeDirectory(able), routers={"skills": CascadingRouter(AGREEMENT, "small", "large")}, workers=setup.workers
    )

    with pytest.raises(InvalidRequest, match="n: a cascade"):
        await setup.orchestrator.run(ask(params={"n": 2}))


async def test_without_time_for_the_next_expert_the_answer_so_far_is_told() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "3", "4"), "large": Stalls()})

    answer = await setup.orchestrator.run(ask(options=replace(ask().options, timeout_s=0.2)))

    assert answer.choices[0].text in {"2", "3", "4"}
    assert answer.trace.aggregator == "cascade:small (fallback)"


async def test_cancelling_the_request_cancels_the_calls() -> None:
    setup = Setup(AGREEMENT, {"small": Stalls()})
    running = asyncio.create_task(setup.orchestrator.run(ask()))
    await setup.workers.until_started("small", 3)
    running.cancel()
    await asyncio.wait({running})

    assert setup.workers.cancelled == ["small"] * 3
    assert setup.trace.status == "cancelled"


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_only_the_accepted_answer_is_streamed() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2 it is", "2 it is", "2 it is")})

    stream = await setup.orchestrator.open_stream(ask(stream=True))
    pieces, progress = await collect(stream)

    assert pieces == ["2 it is"]
    assert set(progress) <= {"small answered", "working"}
    assert stream.announced_aggregator == "cascade"
    assert stream.num_planned_calls == 4
    assert stream.trace.answered_by == "small"
    assert stream.trace.answer == "2 it is"


async def test_the_last_experts_answer_is_streamed_as_it_comes_and_the_first_is_never_seen() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "3", "4"), "large": Says("five it is")})

    stream = await setup.orchestrator.open_stream(ask(stream=True))
    pieces, _ = await collect(stream)

    assert pieces == ["five ", "it ", "is"]
    assert setup.workers.streamed == ["large"]
    assert stream.trace.aggregator == "cascade:large"
    assert [call.stage for call in stream.trace.calls] == [1, 1, 1, 2]
    assert stream.trace.calls[-1].note == "accepted: nobody is left to ask"


@pytest.mark.parametrize("last", [Fails(ExpertUnreachable("refused")), Says("")])
async def test_a_stream_whose_last_expert_says_nothing_tells_the_surest_answer_before(last: Any) -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "2", "4"), "large": last})
    setup.orchestrator = Orchestrator(
        directory=setup.directory,
        routers={"skills": CascadingRouter(replace(AGREEMENT, threshold=0.9), "small", "large")},
        workers=setup.workers,
        sinks=[setup.sink],
    )

    stream = await setup.orchestrator.open_stream(ask(stream=True))
    pieces, _ = await collect(stream)

    assert pieces == ["2"]
    assert stream.trace.aggregator == "cascade:small (fallback)"
    assert stream.trace.answered_by == "small"


async def test_a_last_expert_that_breaks_off_ends_the_stream_with_its_error() -> None:
    setup = Setup(AGREEMENT, {"small": samples("2", "3", "4"), "large": Fails(ExpertProtocolError("half a stream"), pieces=("fi",))})

    stream = await setup.orchestrator.open_stream(ask(stream=True))
    seen: list[str] = []

    async def read() -> None:
        async for event in stream:
            seen.extend(str(choice.delta["content"]) for choice in (() if isinstance(event, Progress) else event.choices))

    with pytest.raises(AllExpertsFailed):
        await read()
    assert seen == ["fi"]
    assert setup.trace.status == "error"


# --- the ladder ------------------------------------------------------------------------------------------------------


async def test_the_next_step_depends_on_what_has_ended_alone() -> None:
    """Whatever order the calls end in, and however often it is asked."""
    setup = Setup(JUDGE, {"small": "2", "judge": "FINAL ASSESSMENT: NO", "large": "3"})
    request = ask()
    decision = RoutingDecision("cascade", ("small", "large"), cascade=JUDGE)
    experts = setup.directory.snapshot().experts
    made = make_ladder(request, decision, JUDGE, experts, deadline=Deadline.after(5), max_calls=8)
    outcomes: dict[int, Any] = {}
    asked = []
    while isinstance(step := next_step(made, dict(outcomes)), Ask):
        assert next_step(made, dict(outcomes)) == step
        asked.append([(position, made.expert_of(position), made.role_of(position).value) for position in step.positions])
        for position in step.positions:
            outcomes[position] = await run_call(made.call(position, outcomes), setup.workers)

    assert asked == [[(0, "small", "candidate")], [(1, "judge", "judge")], [(2, "large", "candidate")]]
    assert isinstance(step, Accepted)
    assert step.answer.text == "3"
    assert made.num_calls == 3
