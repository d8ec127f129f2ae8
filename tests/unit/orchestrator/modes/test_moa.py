"""Mixture-of-Agents: layers that read the layer before."""

from __future__ import annotations

from domain.errors import ExpertUnreachable
from domain.plan import CallRole
from tests.fakes.workers import Fails, Stalls
from tests.unit.orchestrator.modes.rig import Rig, shown_in


async def test_each_layer_reads_the_one_before_and_the_reader_the_last() -> None:
    script = {"a": ["a1", "a2"], "b": ["b1", "b2"], "c": ["c1", "c2"], "reader": "final"}
    rig = Rig("moa", script)

    assert await rig.ask() == "final"
    first, second, last = rig.workers.calls[:3], rig.workers.calls[3:6], rig.workers.calls[6]
    assert not any("a1" in shown_in(call) for call in first)
    assert all(text in shown_in(call) for call in second for text in ("a1", "b1", "c1"))
    assert all(text in shown_in(last) and text[0] + "1" not in shown_in(last) for text in ("a2", "b2", "c2"))
    assert [(call.role, call.stage) for call in rig.trace.calls] == [
        *[(CallRole.CANDIDATE, 1)] * 3,
        *[(CallRole.CANDIDATE, 2)] * 3,
        (CallRole.AGGREGATOR, 3),
    ]
    assert rig.trace.aggregator == "moa:reader"


async def test_self_moa_samples_the_best_expert_several_times() -> None:
    rig = Rig("moa", {"a": ["1", "2", "3"], "b": "never", "reader": "2"}, mode_options={"self_moa": True, "layers": 1})

    assert await rig.ask() == "2"
    assert rig.workers.called() == ["a", "a", "a", "reader"]
    assert [call.params.get("seed") for call in rig.workers.calls[:3]] == [None, 1, 2]
    assert [call.params.get("temperature") for call in rig.workers.calls[:3]] == [None, 0.7, 0.7]


async def test_seeds_begin_anew_where_they_could_not_be_written_down() -> None:
    rig = Rig("moa", {"a": ["1", "2", "3"], "reader": "2"}, mode_options={"self_moa": True, "layers": 1})

    await rig.ask(params={"seed": 2**63 - 1})
    assert [call.params.get("seed") for call in rig.workers.calls[:3]] == [2**63 - 1, 0, 1]


async def test_a_layer_that_agrees_needs_no_further_one() -> None:
    rig = Rig("moa", {"a": "2", "b": "The answer is 2.", "c": "2"})

    assert await rig.ask() == "2"
    assert len(rig.workers.calls) == 3
    assert "all 3 of layer 1 say the same" in str(rig.trace.aggregator_reason)


async def test_who_fails_in_a_layer_is_missing_from_the_next_and_a_layer_that_fails_is_passed_over() -> None:
    gone = Fails(ExpertUnreachable("gone"))
    rig = Rig("moa", {"a": ["a1", gone], "b": ["b1", gone], "c": [gone, gone], "reader": "final"})

    assert await rig.ask() == "final"
    assert "a1" in rig.shown_to("reader")
    assert "nobody of layer 2 answered, so the layer before was read" in str(rig.trace.aggregator_reason)


async def test_a_quorum_holds_in_every_layer() -> None:
    rig = Rig("moa", {"a": ["a1", "a2"], "b": ["b1", "b2"], "c": Stalls(), "reader": "final"}, quorum=2)

    assert await rig.ask() == "final"
    assert rig.workers.cancelled == ["c", "c"]


async def test_too_few_calls_for_all_layers_are_told() -> None:
    rig = Rig("moa", {"a": "1", "b": "2", "c": "3", "reader": "2"})
    await rig.ask(max_calls=5)

    assert rig.trace.num_calls == 4
    assert "max_calls leaves 5 calls, so 1 of 2 layers are asked" in str(rig.trace.aggregator_reason)


async def test_the_only_answer_of_one_layer_is_read_where_it_is_not_what_was_asked_for() -> None:
    rig = Rig("moa", {"a": "Two.", "b": Fails(ExpertUnreachable("gone")), "reader": '{"x": 2}'}, mode_options={"layers": 1})

    assert await rig.ask(params={"response_format": {"type": "json_object"}}) == '{"x": 2}'
    assert rig.trace.aggregator == "moa:reader"
