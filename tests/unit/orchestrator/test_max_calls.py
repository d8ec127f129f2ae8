"""What bounds a request holds for all of it: an annotator's calls count, take its time, and ask nobody who is not allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.chat import ChatRequest, RequestOptions
from domain.errors import ExpertUnreachable
from domain.experts import ExpertRole, HealthState
from domain.plan import CallRole
from domain.routing import PickRule
from domain.strategy import Strategy
from domain.trace import Trace
from orchestrator.guard import GuardedWorkers
from orchestrator.pipeline import Orchestrator
from routers.annotators import EmbeddingAnnotator
from routers.keyword_annotator import KeywordAnnotator
from tests.fakes.directory import FakeDirectory, KeptTraces
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, skills_router, snapshot_of, specialists
from tests.fakes.workers import Fails, ScriptedWorkers, Stalls

KEYWORDS = {"annotator": "llm", "keyword_expert": "namer"}
PANEL = Strategy("panel", router_options=KEYWORDS, pick=PickRule("top_k", 3), aggregator="fuse", aggregator_expert="fuser")
ROLES = {"namer": frozenset[ExpertRole](), "fuser": frozenset({ExpertRole.AGGREGATOR})}


class World:
    """The skill router with the annotator that asks ``namer``, which does as *namer* says, over scripted experts."""

    def __init__(self, namer: str | Fails | Stalls = "Keywords: capitals") -> None:
        cards = [card(expert_id) for expert_id in specialists()] + [card(expert_id, roles=roles) for expert_id, roles in ROLES.items()]
        self.directory = FakeDirectory(())
        self.directory._snapshot = replace(snapshot_of(cards, specialists()), strategies={"panel": PANEL})
        self.workers = ScriptedWorkers({**{name: f"Nairobi, as {name} has it" for name in (*specialists(), "fuser")}, "namer": namer})
        self.sink = KeptTraces()

    async def ask(self, max_calls: int | None, *, stream: bool = False, **options: Any) -> Trace:
        encoder = HashingEncoder()
        by_name = KeywordAnnotator(GuardedWorkers(self.workers, self.directory), encoder, EmbeddingAnnotator(encoder))
        router = await skills_router(self.directory.snapshot(), annotators={"llm": by_name})
        orchestrator = Orchestrator(directory=self.directory, routers={"skills": router}, workers=self.workers, sinks=[self.sink])
        messages = ({"role": "user", "content": "Name the capital of Kenya."},)
        request = ChatRequest("request-1", "consilium/panel", messages, options=RequestOptions(max_calls=max_calls, **options))
        if not stream:
            return (await orchestrator.run(request)).trace
        opened = await orchestrator.open_stream(request)
        async for _ in opened:
            pass
        assert opened.num_planned_calls == opened.trace.num_calls
        return opened.trace


def roles(trace: Trace) -> list[CallRole]:
    return [call.role for call in trace.calls]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_calls", range(1, 9))
async def test_no_request_makes_more_calls_than_it_may(max_calls: int, stream: bool) -> None:
    world = World()

    trace = await world.ask(max_calls, stream=stream)

    assert len(world.workers.calls) == trace.num_calls <= max_calls
    assert CallRole.CANDIDATE in roles(trace)


async def test_the_annotators_calls_leave_room_for_one_answer() -> None:
    trace = await World().ask(6)

    assert roles(trace) == [CallRole.ANNOTATOR] * 5 + [CallRole.CANDIDATE]
    assert trace.decision is not None
    assert trace.decision.detail["annotator"] == "llm"


async def test_what_the_annotator_leaves_is_the_panels_and_the_aggregators() -> None:
    """The strategy's own cap of eight."""
    trace = await World().ask(None)

    assert roles(trace) == [CallRole.ANNOTATOR] * 5 + [CallRole.CANDIDATE] * 2 + [CallRole.AGGREGATOR]


async def test_too_few_calls_for_keywords_are_spent_on_the_answer_and_it_is_said() -> None:
    trace = await World().ask(5)

    assert roles(trace) == [CallRole.CANDIDATE] * 3 + [CallRole.AGGREGATOR]
    assert trace.decision is not None
    assert trace.decision.detail["annotator"] == "embedding"
    assert trace.decision.detail["notes"] == [
        "max_calls is 5, too few for 5 keyword calls and an answer, so skills were found by similarity"
    ]
    assert "max_calls is 5" in trace.decision.reason


async def test_calls_that_fail_count_and_calls_that_are_not_made_do_not() -> None:
    failing, open_circuit = World(Fails(ExpertUnreachable("refused"))), World()
    open_circuit.directory.health["namer"] = HealthState.OPEN

    assert roles(await failing.ask(6)) == [CallRole.ANNOTATOR] * 5 + [CallRole.CANDIDATE]
    trace = await open_circuit.ask(6)
    assert trace.num_calls == 4
    assert [call.status for call in trace.calls] == ["skipped"] * 5 + ["ok"] * 4


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"deny": ("namer",)}, "'namer' is in consilium.deny"),
        ({"allow": ("atlas", "mirror")}, "'namer' is not in consilium.allow"),
    ],
)
async def test_an_annotators_expert_that_the_request_does_not_allow_is_not_called(options: dict[str, Any], why: str) -> None:
    trace = await World().ask(None, **options)

    assert CallRole.ANNOTATOR not in roles(trace)
    assert trace.decision is not None
    assert f"the keyword expert {why}, so skills were found by similarity" in trace.decision.detail["notes"]


async def test_an_annotators_expert_that_hangs_leaves_time_for_the_answer() -> None:
    trace = await World(Stalls()).ask(None, timeout_s=2.0)

    assert trace.status == "ok"
    assert [(call.role, call.status) for call in trace.calls[:5]] == [(CallRole.ANNOTATOR, "error")] * 5
