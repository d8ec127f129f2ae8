"""Conversations on the real encoder and the zoo's labelled questions: who answers the last turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import pytest

from domain.errors import NoEligibleExpert
from domain.skills import LabelledQuestion
from routers.annotators import EmbeddingAnnotator
from routers.encoder import DEFAULT_MODEL, Encoder
from routers.index_holder import IndexHolder
from routers.skills_router import SkillsRouter
from tests.fakes.routing import profile, query, refresh, snapshot_of
from zoo import release
from zoo.questions import GENERATORS

Asked = Callable[..., Coroutine[None, None, str | None]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Who answers the last of the user's turns; None when it is refused."""
    questions = [
        LabelledQuestion(row["id"], row["question"], row["answer"], row["category"], tuple(row["skills"]))
        for row in release.labelled_questions()
    ]
    skills = {q.skills[0]: q.category for q in questions}
    profiles = {name: profile(name, {skill: (50, 48 if domain == name else 2) for skill, domain in skills.items()}) for name in GENERATORS}
    snapshot = snapshot_of(profiles=profiles)
    encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=tmp_path_factory.mktemp("encoder"))
    holder = IndexHolder(encoder)

    async def start() -> None:
        await encoder.start()
        await refresh(holder, snapshot, questions)

    asyncio.run(start())
    router = SkillsRouter(holder, {"embedding": EmbeddingAnnotator(encoder)})

    async def answers(*turns: str) -> str | None:
        try:
            return (await router.route(query(snapshot, *turns), snapshot)).selected[0]
        except NoEligibleExpert:
            return None

    yield answers
    asyncio.run(encoder.close())


FRANCE = "What is the capital of France?"


@pytest.mark.parametrize(
    ("turns", "expert"),
    [
        ((FRANCE, "What is 3 + 4?", "and doubled?"), "arithmetic"),
        ((FRANCE, "Is 7 even?", "and 8?"), "comparison"),
        ((FRANCE, "Reverse the word lamp.", "and table?"), "text"),
        (("What is 3 + 4?", FRANCE, "and of Spain?", "and Italy?"), "facts"),
        ((FRANCE, "What is 21 + 13?", "why?", "double it"), "arithmetic"),
    ],
)
async def test_after_a_change_of_topic_a_follow_up_goes_to_the_new_topic(asked: Asked, turns: tuple[str, ...], expert: str) -> None:
    assert await asked(*turns) == expert


@pytest.mark.parametrize(
    ("turns", "expert"),
    [
        (("What is 21 + 13?", "double it"), "arithmetic"),
        (("Write XIV in digits.", "why?"), "numerals"),
        (("Write XIV in digits.", "ok"), "numerals"),
        (("Reverse the word lamp.", "once more please"), "text"),
    ],
)
async def test_a_few_words_stay_with_the_topic(asked: Asked, turns: tuple[str, ...], expert: str) -> None:
    assert await asked(*turns) == expert


@pytest.mark.parametrize("new", ["Best pasta recipe?", "Python decorators?", "Guitar chords?", "Write a poem about autumn."])
async def test_a_new_unknown_topic_is_refused_however_short_it_is(asked: Asked, new: str) -> None:
    assert await asked("What is 21 + 13?", new) is None
    assert await asked("What is 21 + 13?", new, "why?") is None
