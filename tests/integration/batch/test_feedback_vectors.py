"""What was routed is kept for feedback, as of single requests: lines are answered long after they were routed."""

from __future__ import annotations

from typing import Any, cast

from tests.fakes.batch_rig import Rig, chat_line
from tests.fakes.directory import FakeRouter
from tests.integration.batch.conftest import MakeRig
from tests.integration.batch.test_engine import ECHOES, named_in_the_text

VECTOR = b"\x00\x3c\x00\xc0"
LINES = (
    chat_line("one", "a 1"),
    chat_line("panel", "ab 2", model="consilium/panel"),
    chat_line("vote", "abc 3", model="consilium/vote"),
)


def routed_as(rig: Rig, vector: bytes) -> None:
    cast(FakeRouter, rig.routers["skills"]).vector = vector


async def vectors_of(rig: Rig) -> list[bytes | None]:
    return [trace.decision.vector if trace.decision is not None else None for trace in rig.sink.traces]


async def test_the_trace_of_every_line_has_what_was_routed(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text, encoder_id=lambda: "minilm")
    routed_as(rig, VECTOR)
    await rig.submit(*LINES)
    batch = await rig.run()

    assert batch.counts.completed == 3
    assert await vectors_of(rig) == [VECTOR] * 3


async def test_where_feedback_is_not_learnt_from_nothing_is_kept(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text)
    routed_as(rig, VECTOR)
    await rig.submit(*LINES)
    await rig.run()

    assert await vectors_of(rig) == [None] * 3


async def test_what_another_encoder_saw_does_not_pass_for_the_new_ones(make_rig: MakeRig) -> None:
    """The encoder is changed between routing and answering, as by a restart with another setting."""
    encoder = ["minilm"]

    def answer(_call: Any) -> str:
        encoder[:] = ["another"]
        return "4"

    rig = make_rig(dict.fromkeys("abc", answer), choose=named_in_the_text, encoder_id=lambda: encoder[0])
    routed_as(rig, VECTOR)
    await rig.submit(*LINES[:1])
    await rig.run()

    assert await vectors_of(rig) == [None]
