"""The skill router's decisions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import InvalidRequest, NoEligibleExpert, NotReady
from domain.routing import PickRule
from domain.skills import LabelledQuestion
from routers.annotators import EmbeddingAnnotator
from routers.explanation import Evidence
from routers.index_holder import IndexHolder
from routers.skills_router import SkillsRouter
from routers.stickiness import SessionMemory
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, labelled, profile, query, refresh, skills_router, snapshot_of, specialists

SUM, CAPITAL, POEM = "What is 40 plus 2?", "Name the capital of Kenya.", "Write a poem about autumn."


def answered_by(expert_id: str) -> SessionMemory:
    """A memory in which *expert_id* answered the session ``s``."""
    sessions = SessionMemory()
    sessions.remember((None, "s"), expert_id)
    return sessions


async def test_the_measured_specialist_is_selected_although_the_generalist_is_stronger_overall() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)

    assert decision.selected == ("calculator",)
    assert decision.skills[0].skill == "addition"
    assert decision.category == "maths"
    assert not decision.fallback
    assert decision.others_fit


async def test_the_generalist_takes_over_when_the_specialist_is_not_eligible() -> None:
    snapshot = snapshot_of()
    asked = query(snapshot, SUM, only=["atlas", "mirror", "generalist"])
    decision = await (await skills_router(snapshot)).route(asked, snapshot)

    assert decision.selected == ("generalist",)


async def test_the_decision_says_why_with_the_numbers() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)
    best = decision.considered[0]

    assert best.expert_id == "calculator"
    assert best.selected
    assert "addition 0.96 of 50 measured" in best.why
    assert "overall 0.50 of 200" in best.why
    assert decision.reason.startswith("The query needs addition (similarity ")
    assert "calculator is best at that" in decision.reason


async def test_only_what_is_read_is_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that are considered a decision tells why the best is; the others tell it when they are asked."""
    snapshot, rows = snapshot_of(), []
    why = Evidence.why

    def seen(evidence: Evidence, row: int) -> str:
        rows.append(row)
        return why(evidence, row)

    monkeypatch.setattr(Evidence, "why", seen)
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)
    made = len(rows)

    assert made == 1 < len(decision.considered)
    assert all(expert.why for expert in decision.considered)
    assert len(rows) == made + len(decision.considered)


async def test_the_detail_shows_the_nearest_questions_and_is_json() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)

    assert decision.detail["nearest_questions"][0]["skills"] == ["addition"]
    assert decision.detail["floor"] == 0.33
    assert json.loads(json.dumps(decision.detail)) == decision.detail


async def test_a_query_like_nothing_known_is_refused_with_the_skills_there_are_and_what_to_do() -> None:
    snapshot = snapshot_of()
    with pytest.raises(NoEligibleExpert) as caught:
        await (await skills_router(snapshot)).route(query(snapshot, POEM), snapshot)

    for told in ("addition", "capitals", "multiplication", "reversing", "consilium experts add", "needed 0.33"):
        assert told in caught.value.message


async def test_a_refusal_lists_at_most_a_hundred_skills() -> None:
    questions = [LabelledQuestion(str(i), f"subject{i} topic{i}", "", skills=(f"skill {i:02}",)) for i in range(110)]
    snapshot = snapshot_of()
    with pytest.raises(NoEligibleExpert, match="and 10 more"):
        await (await skills_router(snapshot, questions=questions)).route(query(snapshot, POEM), snapshot)


async def test_a_query_like_nothing_known_goes_to_the_fallback_expert() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, POEM, fallback="generalist"), snapshot)

    assert decision.selected == ("generalist",)
    assert decision.fallback
    assert not decision.others_fit
    assert decision.skills == ()
    assert "fallback" in decision.reason


async def test_a_fallback_that_is_not_eligible_is_not_used_and_named_with_what_is_in_its_way() -> None:
    snapshot = snapshot_of()
    asked = query(snapshot, POEM, fallback="generalist", only=["atlas"])
    asked = replace(asked, rejected={"generalist": "lacks tools", "mirror": "disabled"})
    with pytest.raises(NoEligibleExpert, match=r"'generalist' is not eligible now \(lacks tools\), and the query is like") as caught:
        await (await skills_router(snapshot)).route(asked, snapshot)

    assert caught.value.reasons == {"generalist": "lacks tools"}


async def test_without_any_question_and_declaration_the_refusal_says_that_nothing_is_known() -> None:
    snapshot = snapshot_of([card("a")], {})
    with pytest.raises(NoEligibleExpert, match="no skill is known yet"):
        await (await skills_router(snapshot, questions=[])).route(query(snapshot, SUM), snapshot)


async def test_before_the_index_is_there_it_is_not_ready() -> None:
    encoder, snapshot = HashingEncoder(), snapshot_of()
    router = SkillsRouter(IndexHolder(encoder), {"embedding": EmbeddingAnnotator(encoder)})
    with pytest.raises(NotReady):
        await router.route(query(snapshot, SUM), snapshot)


async def test_an_expert_that_was_never_measured_is_useful_at_once_on_new_ground() -> None:
    cook = card("cook", skills=("cooking",), exemplars=("How long do I boil rice?",))
    snapshot = snapshot_of([*map(card, specialists()), cook], specialists())
    decision = await (await skills_router(snapshot)).route(query(snapshot, "How long do I boil noodles?"), snapshot)

    assert decision.selected == ("cook",)
    assert decision.considered[0].why == "declares cooking, not measured on it"


async def test_experts_that_were_never_measured_take_no_seat_on_ground_that_they_do_not_declare() -> None:
    poet = card("poet", skills=("poetry", "essays"), exemplars=("Write a poem about autumn.",))
    snapshot = snapshot_of([poet, *(card(f"model-{n}") for n in range(13)), *map(card, specialists())], specialists())
    router = await skills_router(snapshot)
    panel = await router.route(query(snapshot, SUM, pick=PickRule("top_k", 3)), snapshot)
    alone = await router.route(query(snapshot, POEM), snapshot)

    assert set(panel.selected) < set(specialists())
    assert alone.selected == ("poet",)


async def test_an_expert_that_was_never_measured_answers_when_nobody_else_is_left() -> None:
    snapshot = snapshot_of([card("newcomer"), *map(card, specialists())], specialists())
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM, pick=PickRule("top_k", 5)), snapshot)

    assert len(decision.selected) == 5
    assert decision.considered[-1].score > 0


async def test_a_claim_does_not_beat_a_measured_specialist() -> None:
    boaster = card("boaster", skills=("addition",), exemplars=(SUM,))
    snapshot = snapshot_of([*map(card, specialists()), boaster], specialists())
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)

    assert [scored.expert_id for scored in decision.considered[:2]] == ["calculator", "boaster"]


async def test_an_expert_that_was_measured_bad_does_not_keep_its_claim() -> None:
    profiles = {**specialists(), "boaster": profile("boaster", {"addition": (50, 1)})}
    snapshot = snapshot_of([*map(card, specialists()), card("boaster", skills=("addition",))], profiles)
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM, only=["generalist", "boaster"]), snapshot)

    assert decision.selected == ("generalist",)
    assert decision.considered[1].score < 0.15


async def test_a_skill_that_no_eligible_expert_knows_is_refused_by_its_name() -> None:
    cook = card("cook", skills=("cooking",), exemplars=("How long do I boil rice?",))
    snapshot = snapshot_of([*map(card, specialists()), cook], specialists())
    asked = query(snapshot, "How long do I boil rice?", only=list(specialists()))
    with pytest.raises(NoEligibleExpert, match="needs cooking, and no eligible expert"):
        await (await skills_router(snapshot)).route(asked, snapshot)


async def test_labelled_questions_without_any_profile_are_refused_until_somebody_is_measured() -> None:
    snapshot = snapshot_of([card("a")], {})
    with pytest.raises(NoEligibleExpert, match="needs addition"):
        await (await skills_router(snapshot)).route(query(snapshot, SUM), snapshot)


async def test_symbolic_scoring_is_used_when_the_strategy_asks_for_it() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM, scoring="symbolic"), snapshot)

    assert sum(scored.score for scored in decision.considered) == pytest.approx(1)
    assert decision.detail["scoring"] == "symbolic"


async def test_dynamic_asks_one_expert_for_an_easy_query() -> None:
    snapshot = snapshot_of()
    decision = await (await skills_router(snapshot)).route(query(snapshot, SUM, pick=PickRule()), snapshot)

    assert decision.selected == ("calculator",)


async def test_a_follow_up_stays_with_its_topic_and_a_new_topic_changes_the_expert() -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot)
    follow_up = await router.route(query(snapshot, SUM, "and doubled?"), snapshot)
    new_topic = await router.route(query(snapshot, SUM, CAPITAL), snapshot)

    assert follow_up.selected == ("calculator",)
    assert follow_up.detail["with_context"]
    assert new_topic.selected == ("atlas",)


async def test_a_fragment_stays_with_its_session_when_the_strategy_is_sticky() -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    decision = await router.route(query(snapshot, "and doubled?", session_id="s", sticky=True), snapshot)

    assert decision.selected == ("calculator",)
    assert not decision.others_fit
    assert "session 's' stays with calculator" in decision.reason


@pytest.mark.parametrize("turns", [("ok",), (POEM, "ok"), (SUM, "Please tell me how that was found.")])
async def test_a_query_like_nothing_known_stays_with_its_session_when_the_strategy_is_sticky(turns: tuple[str, ...]) -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    decision = await router.route(query(snapshot, *turns, session_id="s", sticky=True), snapshot)

    assert decision.selected == ("calculator",)
    assert not decision.fallback


async def test_a_session_is_no_reason_to_answer_what_is_known_and_nobody_can() -> None:
    cook = card("cook", skills=("cooking",), exemplars=("How long do I boil rice?",))
    snapshot = snapshot_of([*map(card, specialists()), cook], specialists())
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    asked = query(snapshot, "How long do I boil rice?", session_id="s", sticky=True, only=list(specialists()))
    with pytest.raises(NoEligibleExpert, match="needs cooking"):
        await router.route(asked, snapshot)


@pytest.mark.parametrize(("session_id", "sticky"), [("other", True), ("s", False), (None, True)])
async def test_without_a_known_session_or_the_option_a_fragment_is_refused(session_id: str | None, sticky: bool) -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    with pytest.raises(NoEligibleExpert):
        await router.route(query(snapshot, "and doubled?", session_id=session_id, sticky=sticky), snapshot)


async def test_a_clear_query_leaves_its_session() -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    decision = await router.route(query(snapshot, CAPITAL, session_id="s", sticky=True), snapshot)

    assert decision.selected == ("atlas",)


async def test_a_sessions_expert_that_is_not_eligible_any_more_is_forgotten() -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot, sessions=answered_by("calculator"))
    with pytest.raises(NoEligibleExpert):
        await router.route(query(snapshot, "and doubled?", session_id="s", sticky=True, only=["atlas"]), snapshot)


async def test_routing_alone_changes_no_session() -> None:
    """``POST /v1/route`` only asks; and what is routed may still fail."""
    snapshot, sessions = snapshot_of(), answered_by("mirror")
    router = await skills_router(snapshot, sessions=sessions)
    await router.route(query(snapshot, SUM, session_id="s"), snapshot)

    assert sessions.recall((None, "s")) == "mirror"


@pytest.mark.parametrize("fallback", [None, "generalist"])
@pytest.mark.parametrize("content", ["", "  \n", [], [{"type": "text", "text": ""}]])
async def test_a_query_that_says_nothing_is_the_callers_to_change(content: Any, fallback: str | None) -> None:
    snapshot = snapshot_of()
    asked = query(snapshot, SUM, fallback=fallback)
    asked = replace(asked, request=replace(asked.request, messages=({"role": "user", "content": content},)))
    with pytest.raises(InvalidRequest, match="no text to route by") as caught:
        await (await skills_router(snapshot)).route(asked, snapshot)

    assert caught.value.param == "messages"


async def test_an_assistants_message_without_text_is_no_query() -> None:
    snapshot = snapshot_of()
    asked = query(snapshot, SUM)
    asked = replace(asked, request=replace(asked.request, messages=({"role": "assistant", "content": None},)))
    with pytest.raises(InvalidRequest, match="no text to route by"):
        await (await skills_router(snapshot)).route(asked, snapshot)


async def test_an_image_without_a_word_goes_to_the_fallback_expert_if_there_is_one() -> None:
    snapshot = snapshot_of()
    router = await skills_router(snapshot)
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    asked = query(snapshot, SUM)
    asked = replace(asked, request=replace(asked.request, messages=(image,)))
    decision = await router.route(replace(asked, fallback_expert="generalist"), snapshot)
    with pytest.raises(InvalidRequest, match="ask a model by name"):
        await router.route(asked, snapshot)

    assert decision.selected == ("generalist",)


async def test_new_measurements_count_from_the_next_snapshot_on() -> None:
    encoder, before = HashingEncoder(), snapshot_of()
    holder = IndexHolder(encoder)
    router = SkillsRouter(holder, {"embedding": EmbeddingAnnotator(encoder)})
    await refresh(holder, before, labelled())
    first = await router.route(query(before, SUM), before)
    worse = {**specialists(), "calculator": profile("calculator", {"addition": (50, 1)})}
    after = snapshot_of(profiles=worse, version=2)
    await refresh(holder, after, labelled())
    second = await router.route(query(after, SUM), after)

    assert (first.selected, second.selected) == (("calculator",), ("generalist",))


async def test_a_wrong_option_is_refused() -> None:
    snapshot = snapshot_of()
    with pytest.raises(InvalidRequest, match="did you mean 'floor'"):
        await (await skills_router(snapshot)).route(query(snapshot, SUM, flor=0.2), snapshot)
