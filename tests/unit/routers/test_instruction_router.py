"""Instruction-first routing: what the instruction says and what neighbours scored, mixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.deadline import Deadline
from domain.errors import InvalidRequest, NotReady
from domain.outcomes import OutcomeTable, floats
from domain.plan import ExpertCall
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision
from domain.strategy import Strategy
from routers.annotators import EmbeddingAnnotator
from routers.instruction_router import InstructionRouter, parse_instruction
from routers.instructions import Instructions
from routers.model_keeper import models_of_strategies
from tests.fakes.learned import MemorySource, World, outcome_table
from tests.fakes.routing import card, holder_for, query, snapshot_of
from tests.fakes.workers import AnswersInTurn

CARDS = [
    card("calculator", description="Adds and multiplies whole numbers"),
    card("atlas", description="Names the capital of a country"),
    card("mirror", description="Spells a word backwards"),
    card("poet", description="Writes rhyming poems", exemplars=("Write a poem about rain.",)),
    card("blank"),
]
SNAPSHOT = snapshot_of(CARDS, {})
NOTHING_MEASURED = OutcomeTable((), (), floats(()))
SUM = "What is 40 plus 2?"


async def world_with(
    *answers: str | None, snapshot: RegistrySnapshot = SNAPSHOT, table: OutcomeTable | None = None, timeout_s: float = 10.0
) -> tuple[World, InstructionRouter, AnswersInTurn]:
    world, workers = World(snapshot, MemorySource(table)), AnswersInTurn(answers)
    holder = await holder_for(snapshot, world.encoder)
    router = InstructionRouter(
        workers,
        world.keeper,
        index_holder=holder,
        annotator=EmbeddingAnnotator(world.encoder),
        encoder=world.encoder,
        timeout_s=timeout_s,
    )
    world.keeper.serve(lambda s: models_of_strategies({"instruction": router.model_for}, s))
    world.keeper._want(*router.model_for({"instruction_expert": "calculator"}))
    await world.keeper.refresh()
    return world, router, workers


async def decide(
    *answers: str | None, text: str = SUM, alpha: float = 0.5, table: OutcomeTable | None = None, timeout_s: float = 10.0, **changes: Any
) -> tuple[RoutingDecision, list[ExpertCall]]:
    _, router, workers = await world_with(*answers, table=table, timeout_s=timeout_s)
    asked = replace(query(SNAPSHOT, text, instruction_expert="calculator", alpha=alpha), **changes)
    return await router.route(asked, SNAPSHOT), workers.calls


async def test_the_instruction_finds_the_expert_that_is_for_it() -> None:
    decision, calls = await decide("Writes rhyming poems about things", alpha=1.0)

    assert decision.selected == ("poet",)
    assert decision.reason.startswith("The task is: Writes rhyming poems about things; poet is best at that")
    assert decision.detail["instruction"] == "Writes rhyming poems about things"
    assert len(calls) == len(decision.calls) == 1
    assert SUM in calls[0].messages[0]["content"]


async def test_without_weight_for_the_instruction_the_neighbours_decide() -> None:
    decision, _ = await decide("Writes rhyming poems about things", alpha=0.0)

    assert decision.selected == ("calculator",)


async def test_each_expert_says_what_its_score_is_made_of() -> None:
    decision, _ = await decide("Spell a word backwards")
    why = {expert.expert_id: expert.why for expert in decision.considered}

    assert why["mirror"].startswith("instruction 1.00, nearest to '")
    assert "neighbours 1.00" not in why["mirror"]
    assert "says nothing of what it is for" in why["blank"]


async def test_questions_that_an_expert_wins_say_what_it_is_for() -> None:
    """Without a word on any card."""
    silent = snapshot_of([card(expert_id) for expert_id in ("calculator", "atlas", "mirror")], {})
    _, router, _ = await world_with("Name the capital of a land", snapshot=silent)
    asked = query(silent, "Of that country, which city governs?", instruction_expert="calculator", alpha=1.0)

    assert (await router.route(asked, silent)).selected == ("atlas",)


async def test_without_any_outcome_the_cards_decide() -> None:
    decision, _ = await decide("Writes rhyming poems", table=NOTHING_MEASURED)

    assert decision.selected == ("poet",)


async def test_an_expert_that_nobody_knows_takes_no_seat_before_a_measured_one() -> None:
    decision, _ = await decide("Adds numbers", pick=PickRule("top_k", 4))

    assert decision.considered[-1].expert_id == "blank"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "failed (connection refused), so the query stands for its instruction"),
        ("", "wrote none, so the query stands for its instruction"),
        ("hang", "no answer within 0.01 s"),
    ],
)
async def test_without_an_instruction_the_query_stands_for_it_and_it_is_said(answer: str | None, says: str) -> None:
    decision, calls = await decide(answer, timeout_s=0.01 if answer == "hang" else 10.0)

    assert decision.selected == ("calculator",)
    assert decision.detail["instruction"] is None
    assert says in decision.reason
    assert len(calls) == len(decision.calls) == 1


async def test_no_call_is_made_that_the_request_forbids_or_has_no_room_for() -> None:
    denied, calls = await decide(barred=lambda _: "in consilium.deny")
    short, more_calls = await decide(max_calls=1)

    assert calls == more_calls == []
    assert "the instruction expert 'calculator' is in consilium.deny" in denied.reason
    assert "max_calls is 1, too few for 1 instruction call and an answer" in short.reason


async def test_what_experts_are_for_is_read_once_and_again_when_a_card_changes() -> None:
    world, router, _ = await world_with("Solve riddles", "Solve riddles", table=outcome_table())
    held = world.keeper.held(router.model_for({"instruction_expert": "x"})[0])
    world.snapshot = replace(SNAPSHOT, version=2, strategies={"s": Strategy("s")})
    await world.keeper.refresh()
    unchanged = world.keeper.held(router.model_for({"instruction_expert": "x"})[0])
    riddler = [*CARDS[:-1], card("blank", description="Solve riddles")]
    world.snapshot = snapshot_of(riddler, {}, version=3)
    await world.keeper.refresh()
    asked = query(world.snapshot, "What has keys but no locks?", instruction_expert="calculator", alpha=1.0)

    assert held is unchanged
    assert (await router.route(asked, world.snapshot)).selected == ("blank",)


async def test_before_it_is_known_what_experts_are_for_it_says_so() -> None:
    world = World(SNAPSHOT)
    holder = await holder_for(SNAPSHOT, world.encoder)
    router = InstructionRouter(
        AnswersInTurn([]), world.keeper, index_holder=holder, annotator=EmbeddingAnnotator(world.encoder), encoder=world.encoder
    )
    asked = replace(query(SNAPSHOT, SUM, instruction_expert="calculator"), deadline=Deadline.after(0.05))

    with pytest.raises(NotReady, match="the router 'instruction' is being fitted"):
        await router.route(asked, SNAPSHOT)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({}, "router_options.instruction_expert"),
        ({"instruction_expert": 3}, "router_options.instruction_expert"),
        ({"instruction_expert": "a", "alpha": 2}, "router_options.alpha"),
        ({"instruction_expert": "a", "alfa": 1}, "router_options.alfa"),
    ],
)
async def test_wrong_options_are_refused_by_name(options: Mapping[str, Any], param: str) -> None:
    _, router, _ = await world_with()
    with pytest.raises(InvalidRequest) as refused:
        router.check_options(options)

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("text", "instruction"),
    [
        ("Add two whole numbers.", "Add two whole numbers."),
        ('\n  Instruction: "Translate dates."\nBecause …', "Translate dates."),
        ("---\n**Spell words.**", "Spell words."),
        ("  \n ...", ""),
        ("x" * 1000, "x" * 397 + "..."),
    ],
)
def test_the_instruction_is_the_first_line_that_says_something(text: str, instruction: str) -> None:
    assert parse_instruction(text) == instruction


def test_each_expert_is_compared_by_its_own_pieces_in_whatever_order_they_stand() -> None:
    pieces = np.eye(4, dtype=np.float32)[[0, 1, 2, 0]]
    known = Instructions(
        column_of={"a": 0, "nobody": 1, "b": 2},
        pieces=pieces,
        owner=np.array([2, 0, 2, 0], np.intp),
        texts=("sums", "capitals", "words", "terms"),
        questions=np.zeros((0, 4), np.float32),
        scores=np.zeros((0, 3), np.float32),
        overall=np.full(3, 0.5),
    )
    values, nearest = known.similarities(np.eye(4, dtype=np.float32)[1])

    assert values.tolist() == [0.5, -1.0, 0.0]
    assert nearest == ["capitals", "", "sums"]
    assert Instructions({}, pieces[:0], np.zeros(0, np.intp), (), pieces[:0], pieces[:0], np.zeros(0)).similarities(pieces[0])[1] == []
