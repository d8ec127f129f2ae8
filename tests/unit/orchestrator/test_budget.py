"""One budget for a request: calls, tokens, price; what does not fit is not called, and the answer so far is told with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.budget import Budget
from domain.chat import RequestOptions, Usage
from domain.deadline import Deadline
from domain.errors import ExpertUnavailable, ExpertUnreachable, InvalidRequest
from domain.experts import ExpertRole, Price
from domain.plan import Candidate, ExpertCall, ExpertFailure
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.admission.estimate import MESSAGE_TOKENS
from orchestrator.budget import MIN_ANSWER_TOKENS, BudgetLedger
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls
from tests.unit.orchestrator.test_pipeline import ask
from tests.unit.orchestrator.test_stream import collect
from workers.limits import PoolLimits
from workers.retry import retried

FUSER = card("fuser", roles=frozenset({ExpertRole.AGGREGATOR}))
PANEL = Strategy("panel", pick=PickRule("top_k", 3), aggregator="fuse")
VOTE = replace(PANEL, id="vote", aggregator="vote")


class Setup:
    def __init__(self, script: dict[str, Any], strategy: Strategy, *selected: str, price: Price | None = None) -> None:
        cards = [card(expert_id, price=price or Price()) for expert_id in ("a", "b", "c")]
        self.workers, self.sink = ScriptedWorkers(script), KeptTraces()
        directory = FakeDirectory([*cards, FUSER], strategies=[strategy])
        self.orchestrator = Orchestrator(
            directory=directory, routers={"skills": FakeRouter(*(selected or ("a", "b", "c")))}, workers=self.workers, sinks=[self.sink]
        )
        self.model = f"consilium/{strategy.id}"

    @property
    def trace(self):
        (trace,) = self.sink.traces
        return trace


def said(text: str, tokens: int) -> Says:
    return Says(text, usage=Usage(10, tokens))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_aggregator_that_the_tokens_leave_no_room_for_is_not_asked_and_the_best_candidate_is_told(stream: bool) -> None:
    setup = Setup({"a": said("2", 60), "b": said("3", 60), "c": said("4", 60)}, replace(PANEL, budget=Budget(max_tokens=250)))

    if stream:
        opened = await setup.orchestrator.open_stream(ask(setup.model, stream=True))
        pieces, _ = await collect(opened)
        assert pieces == ["2"]
    else:
        assert (await setup.orchestrator.run(ask(setup.model))).choices[0].text == "2"

    assert sorted(setup.workers.called()) == ["a", "b", "c"]
    assert setup.trace.aggregator == "fuse:fuser (fallback)"
    assert "max_tokens leaves 40 of 250 tokens" in str(setup.trace.aggregator_reason)


async def test_answers_of_calls_at_once_share_what_is_left() -> None:
    setup = Setup({"a": "2", "b": "2", "c": "2"}, replace(VOTE, budget=Budget(max_tokens=300)))
    await setup.orchestrator.run(ask(setup.model))

    longest = [call.params["max_tokens"] for call in setup.workers.calls]
    assert len(set(longest)) == 1
    assert MIN_ANSWER_TOKENS <= longest[0] < 100


async def test_a_shorter_answer_that_the_caller_asks_for_stays_as_it_is() -> None:
    setup = Setup({"a": "2", "b": "2", "c": "2"}, replace(VOTE, budget=Budget(max_tokens=300)))
    await setup.orchestrator.run(ask(setup.model, params={"max_completion_tokens": 5}))

    assert [dict(call.params) for call in setup.workers.calls] == [{"max_completion_tokens": 5}] * 3


async def test_candidates_that_do_not_fit_are_left_out_from_the_last() -> None:
    setup = Setup({"a": "2", "b": "2"}, replace(VOTE, budget=Budget(max_tokens=85)))

    answer = await setup.orchestrator.run(ask(setup.model))

    assert answer.choices[0].text == "2"
    assert setup.workers.called() == ["a", "b"]
    assert [(call.expert_id, call.status) for call in setup.trace.calls] == [("a", "ok"), ("b", "ok"), ("c", "skipped")]
    assert setup.trace.num_calls == 2


async def test_a_budget_that_is_too_small_for_any_call_is_refused_before_one_is_made() -> None:
    setup = Setup({}, VOTE)
    with pytest.raises(InvalidRequest, match="max_tokens leaves 5 of 5 tokens"):
        await setup.orchestrator.run(ask(setup.model, options=RequestOptions(budget=Budget(max_tokens=5))))
    assert setup.workers.called() == []


async def test_a_request_can_tighten_its_strategys_budget_but_not_widen_it() -> None:
    strategy = replace(VOTE, budget=Budget(max_tokens=85))
    wide = Setup({"a": "2", "b": "2"}, strategy)
    await wide.orchestrator.run(ask(wide.model, options=RequestOptions(budget=Budget(max_tokens=10_000))))
    tight = Setup({"a": "2"}, strategy)
    await tight.orchestrator.run(ask(tight.model, options=RequestOptions(budget=Budget(max_tokens=50))))

    assert (wide.workers.called(), tight.workers.called()) == (["a", "b"], ["a"])


async def test_a_price_bounds_the_answers_of_experts_that_cost_something() -> None:
    setup = Setup({"a": "2", "b": "2", "c": "2"}, replace(VOTE, budget=Budget(max_price=0.001)), price=Price(0.0, 10.0))
    await setup.orchestrator.run(ask(setup.model))

    assert [call.params["max_tokens"] for call in setup.workers.calls] == [33] * 3


async def test_the_trace_tells_tokens_one_after_the_other_apart_from_all_of_them() -> None:
    setup = Setup({"a": said("2", 60), "b": said("3", 20), "c": said("4", 30), "fuser": said("2", 7)}, PANEL)
    await setup.orchestrator.run(ask(setup.model))

    assert setup.trace.sequential_tokens == 60 + 7
    assert setup.trace.usage.completion_tokens == 60 + 20 + 30 + 7


async def test_retries_never_take_the_calls_over_the_cap_nor_the_one_that_is_kept_for_the_aggregator() -> None:
    """Three candidates that fail whenever they are called, a cap of five calls, one of them the aggregator's."""
    num_attempts = 0

    async def attempt() -> Candidate:
        nonlocal num_attempts
        num_attempts += 1
        raise ExpertUnreachable("refused")

    ledger = BudgetLedger(max_calls=5)
    calls = [ExpertCall(card(name), (), {}, Deadline.after(60), "r", again=ledger.again) for name in ("a", "b", "c")]
    assert list(ledger.grant(calls, num_to_come=1)) == calls
    limits = PoolLimits(max_attempts=3, retry_wait_initial_s=0.0, retry_wait_max_s=0.0)
    for call in calls:
        with pytest.raises(ExpertUnreachable):
            await retried(attempt, limits, call.deadline, call.expert.id, again=call.again)

    assert num_attempts == 4
    assert ledger.num_left == 1
    (granted,) = ledger.grant([calls[0]])
    assert isinstance(granted, ExpertCall)
    (refused,) = ledger.grant([calls[0]])
    assert isinstance(refused, ExpertFailure)
    assert not refused.called


def test_a_call_that_was_never_made_costs_none() -> None:
    """Its expert's circuit opened before."""
    ledger = BudgetLedger(max_calls=2)
    calls = [ExpertCall(card(name), (), {}, Deadline.after(60), "r") for name in ("a", "b")]
    ledger.grant(calls)
    ledger.ended(calls, [ExpertFailure("a", ExpertUnavailable.code, "open"), ExpertFailure("b", ExpertUnreachable.code, "refused")])

    assert ledger.num_left == 1


@pytest.mark.parametrize(
    ("budget", "longest"),
    [(Budget(max_tokens=200), 100 - 2 * MESSAGE_TOKENS), (Budget(max_price=0.002), 100), (Budget(max_sequential_tokens=120), 120)],
    ids=["tokens", "dollars", "one after the other"],
)
def test_a_call_beside_one_that_runs_gets_what_that_leaves_at_its_longest(budget: Budget, longest: int) -> None:
    """An answer's token costs a hundred-thousandth of a dollar, a prompt nothing."""
    expert = card("a", price=Price(0.0, 10.0))
    first, second = (
        ExpertCall(expert, ({"role": "user", "content": ""},), params, Deadline.after(60), "r") for params in ({"max_tokens": 100}, {})
    )
    ledger = BudgetLedger(budget, max_calls=3)
    (running,) = ledger.grant([first])
    assert isinstance(running, ExpertCall)

    (granted,) = ledger.grant([second], beside=[running])

    assert isinstance(granted, ExpertCall)
    assert granted.params["max_tokens"] == longest


@pytest.mark.parametrize("stream", [False, True])
async def test_who_had_no_room_beside_experts_that_failed_stands_in_for_them(stream: bool) -> None:
    gone = Fails(ExpertUnreachable("gone"))
    setup = Setup({"a": gone, "b": gone, "c": "4"}, replace(VOTE, budget=Budget(max_tokens=85)))

    if stream:
        assert (await collect(await setup.orchestrator.open_stream(ask(setup.model, stream=True))))[0] == ["4"]
    else:
        assert (await setup.orchestrator.run(ask(setup.model))).choices[0].text == "4"
    assert [(call.expert_id, call.status) for call in setup.trace.calls] == [("a", "error"), ("b", "error"), ("c", "skipped"), ("c", "ok")]


async def test_a_quorum_does_not_wait_for_a_straggler() -> None:
    setup = Setup({"a": "2", "b": "2", "c": Stalls()}, replace(VOTE, quorum=2))

    answer = await setup.orchestrator.run(ask(setup.model))

    assert answer.choices[0].text == "2"
    assert setup.workers.cancelled == ["c"]
    assert [(call.expert_id, call.status) for call in setup.trace.calls] == [("a", "ok"), ("b", "ok"), ("c", "cancelled")]


async def test_an_empty_answer_is_no_part_of_a_quorum() -> None:
    setup = Setup({"a": "", "b": "3", "c": "3"}, replace(VOTE, quorum=2))

    assert (await setup.orchestrator.run(ask(setup.model))).choices[0].text == "3"
    assert setup.workers.cancelled == []


async def test_a_candidate_has_a_deadline_of_its_own_and_the_aggregator_the_requests() -> None:
    setup = Setup({"a": "2", "b": "3", "c": "4", "fuser": "2"}, replace(PANEL, candidate_timeout_s=5.0, timeout_s=60.0))
    await setup.orchestrator.run(ask(setup.model))

    *candidates, fuser = setup.workers.calls
    assert all(call.deadline.remaining_s <= 5.0 for call in candidates)
    assert fuser.deadline.remaining_s > 5.0
