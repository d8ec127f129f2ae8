"""Skills picked from a closed menu by a language model, and what happens when it does not pick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import InvalidRequest, NoEligibleExpert
from domain.plan import CallRole, ExpertCall
from domain.routing import RoutingDecision
from domain.skills import LabelledQuestion
from domain.trace_context import ROUTING_SPAN, TraceContext
from routers import menu_annotator
from routers.annotators import EmbeddingAnnotator
from routers.menu_annotator import Menu, MenuAnnotator, parse_choice
from routers.options import SkillsOptions
from routers.skills_router import SkillsRouter
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, holder_for, labelled, query, request, snapshot_of, specialists
from tests.fakes.workers import AnswersInTurn

SKILLS = {"A1": "addition", "A2": "multiplication", "B1": "capitals"}


async def decide(
    *answers: str | None,
    text: str = "Name the capital of Kenya.",
    questions: Sequence[LabelledQuestion] | None = None,
    timeout_s: float = 10.0,
    labels: frozenset[str] = frozenset(),
    fallback: str | None = None,
    **changes: Any,
) -> tuple[RoutingDecision, list[ExpertCall]]:
    cards = [card(name, labels=labels if name == "generalist" else frozenset()) for name in specialists()]
    encoder, snapshot, workers = HashingEncoder(), snapshot_of(cards), AnswersInTurn(answers, latency_s=0.1)
    holder = await holder_for(snapshot, encoder, questions)
    by_embedding = EmbeddingAnnotator(encoder)
    annotators = {"menu": MenuAnnotator(workers, encoder, by_embedding, timeout_s=timeout_s)}
    router = SkillsRouter(holder, annotators, name="menu", defaults=SkillsOptions(annotator="menu"))
    asked = replace(query(snapshot, text, seed=7, fallback=fallback, menu_expert="generalist"), **changes)
    return await router.route(asked, snapshot), workers.calls


async def test_the_picked_skills_decide_and_not_the_similar_ones() -> None:
    decision, calls = await decide("A1")

    assert (decision.router, decision.selected) == ("menu", ("calculator",))
    assert [(match.skill, match.weight) for match in decision.skills] == [("addition", 1.0)]
    assert decision.category == "maths"
    assert decision.detail["annotator"] == "menu"
    assert "generalist picked addition of 4 skills" in decision.detail["notes"]
    assert len(calls) == len(decision.calls) == 1


async def test_its_calls_are_spans_below_the_routings() -> None:
    """Which the trace's own span of the routing is made for later, under the same id."""
    asked, context = request("Name the capital of Kenya."), TraceContext("0" * 31 + "1", "0" * 15 + "1")
    _, calls = await decide("A1", request=replace(asked, context=context))
    _, untold = await decide("A1")

    assert calls[0].context == context.named_child(ROUTING_SPAN)
    assert untold[0].context is None


async def test_the_menu_names_every_skill_by_id_under_its_category_and_the_question() -> None:
    _, calls = await decide("B1")
    prompt = calls[0].messages[0]["content"]

    assert "A. maths\nA1 addition\nA2 multiplication\nB. facts\nB1 capitals\nC. text\nC1 reversing" in prompt
    assert "Question: Name the capital of Kenya." in prompt
    assert (calls[0].role, calls[0].params["temperature"]) == (CallRole.ANNOTATOR, 0.0)


async def test_several_skills_count_equally() -> None:
    decision, _ = await decide("B1, C1")

    assert [(match.skill, match.weight) for match in decision.skills] == [("capitals", 0.5), ("reversing", 0.5)]


@pytest.mark.parametrize("nonsense", ["I'm sorry, I cannot help with that.", "Nairobi", "Z9", "", "A1 A2 B1 C1 " * 3 + "maths"])
async def test_an_answer_without_a_choice_is_asked_again_once(nonsense: str) -> None:
    decision, calls = await decide(nonsense if "A1" not in nonsense else "Z1 Z2", "C1")

    assert decision.selected == ("mirror",)
    assert [message["role"] for message in calls[1].messages] == ["user", "assistant", "user"]
    assert len(decision.calls) == 2


async def test_without_a_choice_twice_skills_are_found_by_similarity_and_it_is_said() -> None:
    decision, calls = await decide("I cannot do that.", "I really cannot.")

    assert decision.selected == ("atlas",)
    assert decision.detail["annotator"] == "embedding"
    assert "the menu expert 'generalist' made no choice (it said 'I really cannot.'), so skills were found by similarity" in decision.reason
    assert len(calls) == len(decision.calls) == 2


async def test_an_expert_that_fails_is_not_asked_again() -> None:
    decision, calls = await decide(None)

    assert decision.selected == ("atlas",)
    assert "connection refused" in decision.reason
    assert len(calls) == 1


async def test_an_expert_that_hangs_ends_at_the_time_limit() -> None:
    decision, _ = await decide("hang", timeout_s=0.01)

    assert decision.selected == ("atlas",)
    assert "no answer within 0.01 s" in decision.reason


async def test_calls_are_within_the_requests_cap() -> None:
    """One is left for the answer, so there is none for asking again."""
    once, calls = await decide("nonsense", max_calls=2)
    never, no_calls = await decide(max_calls=1)

    assert (len(calls), no_calls) == (1, [])
    assert "max_calls is 1, too few for 1 menu call and an answer" in never.reason
    assert once.selected == never.selected == ("atlas",)


async def test_an_expert_that_the_request_may_not_call_is_not_called_nor_named_to_who_may_not_know_it() -> None:
    denied, calls = await decide(barred=lambda _: "in consilium.deny")
    hidden, _ = await decide(barred=lambda _: "not for this request", labels=frozenset({"internal"}))

    assert calls == []
    assert "the menu expert 'generalist' is in consilium.deny" in denied.reason
    assert "the menu expert is not for this request" in hidden.reason
    assert "generalist" not in hidden.reason


async def test_none_of_the_menu_is_a_query_like_nothing_known() -> None:
    fallen, _ = await decide("NONE", fallback="mirror")

    assert (fallen.selected, fallen.fallback) == (("mirror",), True)
    with pytest.raises(NoEligibleExpert, match="no skill of the menu fits"):
        await decide("none.")


async def test_a_long_menu_is_cut_to_the_skills_nearest_to_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(menu_annotator, "MAX_LISTED", 2)
    decision, calls = await decide("A1", questions=labelled())
    prompt = calls[0].messages[0]["content"]

    assert "capitals" in prompt
    assert "of 2 skills" in decision.detail["notes"][0]


async def test_the_router_needs_to_be_told_who_picks_and_has_no_other_annotator() -> None:
    router = SkillsRouter(await holder_for(snapshot_of(), HashingEncoder()), {}, name="menu", defaults=SkillsOptions(annotator="menu"))
    router.check_options({"menu_expert": "generalist", "scoring": "symbolic"})

    with pytest.raises(InvalidRequest, match="must name the registered expert that picks"):
        router.check_options({})
    with pytest.raises(InvalidRequest, match="is no option of the router 'menu'"):
        router.check_options({"menu_expert": "generalist", "annotator": "llm"})


@pytest.mark.parametrize(
    ("text", "picked"),
    [
        ("A1", ["addition"]),
        (" a2, B1.", ["multiplication", "capitals"]),
        ("The ids are: **B1**", ["capitals"]),
        ("B1 B1 A1", ["capitals", "addition"]),
        ("A1, Q7", ["addition"]),
        ("NONE", []),
        ("none.", []),
        ("None of this helps", None),
        ("A10", None),
        ("", None),
    ],
)
def test_ids_are_read_wherever_they_stand_and_nothing_else_is(text: str, picked: list[str] | None) -> None:
    assert parse_choice(text, SKILLS) == picked


def test_an_answer_that_repeats_the_menu_is_no_choice_and_a_long_one_is_cut() -> None:
    skills = {f"A{number}": f"skill {number}" for number in range(1, 21)}

    assert parse_choice(" ".join(skills), skills) is None
    assert parse_choice("A1 A2 A3 A4 A5", skills) == ["skill 1", "skill 2", "skill 3", "skill 4"]


def test_categories_beyond_the_alphabet_get_two_letters_and_descriptions_are_listed() -> None:
    menu = Menu.of({f"category {number}": [f"skill {number}"] for number in range(28)}, {"skill 27": "the last one"})

    assert list(menu.skills)[-2:] == ["AA1", "AB1"]
    assert "AB1 skill 27: the last one" in menu.text
