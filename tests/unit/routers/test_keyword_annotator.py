"""Skills named by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.deadline import Deadline
from domain.plan import CallRole
from routers.annotators import Annotation, EmbeddingAnnotator
from routers.keyword_annotator import KeywordAnnotator, agreed_keywords, parse_keywords
from routers.options import SkillsOptions
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, holder_for, query, snapshot_of, specialists
from tests.fakes.workers import AnswersInTurn


async def annotate(
    answers: Sequence[str | None],
    *,
    expert: str = "generalist",
    timeout_s: float = 10,
    labels: frozenset[str] = frozenset(),
    **changes: Any,
) -> tuple[Annotation, AnswersInTurn]:
    """*labels* are the keyword expert's; *changes* are fields of the ``RoutingQuery``."""
    cards = [card(name, labels=labels if name == expert else frozenset()) for name in specialists()]
    encoder, snapshot, workers = HashingEncoder(), snapshot_of(cards), AnswersInTurn(answers)
    index = (await holder_for(snapshot, encoder)).index()
    annotator = KeywordAnnotator(workers, encoder, EmbeddingAnnotator(encoder), timeout_s=timeout_s)
    options = SkillsOptions(annotator="llm", keyword_expert=expert)
    asked = replace(query(snapshot, "Name the capital of Kenya.", seed=7), **changes)
    return await annotator.annotate(asked, snapshot, index, options), workers


async def test_keywords_that_come_more_than_once_become_skills_weighted_by_how_often() -> None:
    answers = ["Keywords: capitals, addition", "Keywords: capitals", "Keywords: Capitals.", "Keywords: addition", "Keywords: law"]
    annotation, workers = await annotate(answers)

    assert [(match.skill, round(match.weight, 2)) for match in annotation.skills] == [("capitals", 0.6), ("addition", 0.4)]
    assert annotation.source == "llm"
    assert annotation.category == "facts"
    assert len(workers.calls) == 5


async def test_the_expert_is_asked_as_the_paper_does_with_seeds_of_the_request() -> None:
    _, workers = await annotate(["Keywords: capitals"] * 5)
    call = workers.calls[0]

    assert call.role is CallRole.ANNOTATOR
    assert call.params["temperature"] == 0.7
    assert sorted(c.params["seed"] for c in workers.calls) == [7, 8, 9, 10, 11]
    assert "Name the capital of Kenya." in call.messages[0]["content"]


async def test_a_keyword_near_no_skill_stays_unknown() -> None:
    annotation, _ = await annotate(["Keywords: virology"] * 5)

    assert annotation.skills == ()
    assert any("no known skill is near virology" in note for note in annotation.notes)


async def test_one_failing_sample_does_not_matter() -> None:
    annotation, _ = await annotate([None, *["Keywords: capitals"] * 4])

    assert annotation.source == "llm"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([None] * 5, "connection refused"),
        ([None] * 4 + ["Keywords: capitals"], "1 of 5 answers"),
        (["Keywords: a", "Keywords: b", "Keywords: c", "Keywords: d", "Keywords: e"], "share no keyword"),
        (["I am not able to help you with that question"] * 5, "share no keyword"),
    ],
)
async def test_without_agreed_keywords_similarity_decides_and_it_is_said(answers: list[str | None], told: str) -> None:
    annotation, _ = await annotate(answers)

    assert annotation.source == "embedding"
    assert annotation.skills[0].skill == "capitals"
    assert told in annotation.notes[0]


async def test_an_expert_that_hangs_ends_at_the_time_limit() -> None:
    annotation, _ = await annotate(["hang"] * 5, timeout_s=0.01)

    assert annotation.source == "embedding"
    assert "no answer within 0.01 s" in annotation.notes[0]


async def test_the_samples_take_half_of_the_requests_time_at_most() -> None:
    """What is left is for the answer; the calls are kept for the trace."""
    annotation, workers = await annotate(["hang"] * 5, deadline=Deadline(at=0.1, clock=lambda: 0.0))

    assert annotation.source == "embedding"
    assert annotation.skills[0].skill == "capitals"
    assert len(annotation.calls) == 5
    assert "no answer within 0.05 s" in annotation.notes[0]
    assert all(call.deadline.remaining_s <= 0.05 for call in workers.calls)


@pytest.mark.parametrize(("labels", "named"), [(frozenset[str](), "'generalist' "), (frozenset({"legal"}), "")])
async def test_an_expert_that_the_request_may_not_use_is_not_called(labels: frozenset[str], named: str) -> None:
    """Who lacks the labels of an expert does not hear its name either."""
    annotation, workers = await annotate([], barred=lambda card: f"barred, {card.id == 'generalist'}", labels=labels)

    assert workers.calls == []
    assert annotation.source == "embedding"
    assert annotation.notes[0].startswith(f"the keyword expert {named}is barred, True")


async def test_an_unregistered_expert_is_said_and_not_called() -> None:
    annotation, workers = await annotate([], expert="nobody")

    assert "'nobody' is not registered" in annotation.notes[0]
    assert workers.calls == []


async def test_a_request_without_room_for_the_samples_and_an_answer_makes_no_call_and_it_is_said() -> None:
    annotation, workers = await annotate([], max_calls=5)
    enough, _ = await annotate(["Keywords: capitals"] * 5, max_calls=6)

    assert workers.calls == []
    assert annotation.calls == ()
    assert annotation.source == "embedding"
    assert annotation.skills[0].skill == "capitals"
    assert "max_calls is 5, too few for 5 keyword calls and an answer" in annotation.notes[0]
    assert enough.source == "llm"


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("Keywords: Algebra, number theory.", ["algebra", "number theory"]),
        ("Keywords: <k1>\nKeywords: geometry,, proof", ["geometry", "proof"]),
        ("algebra, geometry", ["algebra", "geometry"]),
        ("", []),
    ],
)
def test_keywords_follow_the_last_marker(text: str, keywords: list[str]) -> None:
    assert parse_keywords(text) == keywords


def test_only_short_keywords_of_more_than_one_sample_are_kept() -> None:
    samples = [["algebra", "algebra", "x" * 21], ["geometry", "x" * 21], ["geometry", "y" * 20], ["y" * 20, "geometry"]]

    assert agreed_keywords(samples) == {"geometry": 3, "y" * 20: 2}
