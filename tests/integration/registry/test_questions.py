"""Labelled questions and their vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import InvalidRequest, NotFound, PreconditionFailed
from domain.skills import LabelledQuestion
from experts_registry import state
from experts_registry.database import Database
from experts_registry.skills import Skill
from experts_registry.stores import Stores
from tests.fakes.registry import make_question

FULL = LabelledQuestion(
    id="q-full",
    question="Und wie schreibt man XIV? 🏛",
    answer="14",
    category="numerals",
    skills=("roman numerals", "digits"),
    options=("14", "16"),
    grader="choice",
    history=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}),
)


async def _questions_version(database: Database) -> int:
    async with database.reading() as connection:
        return (await state.read_versions(connection)).questions


async def test_a_question_comes_back_as_it_went_in(stores: Stores) -> None:
    num_changed = await stores.questions.add([FULL, make_question()], source="test.jsonl")

    assert num_changed == 2
    assert await stores.questions.list() == [FULL, make_question()]


async def test_adding_again_overwrites_by_id_and_counts_what_differs(stores: Stores, database: Database) -> None:
    await stores.questions.add([make_question("q1"), make_question("q2")], source="test")
    version = await _questions_version(database)

    assert await stores.questions.add([make_question("q1"), make_question("q2", answer="XV")], source="test") == 1
    assert await _questions_version(database) == version + 1
    assert await stores.questions.add([make_question("q1")], source="test") == 0
    assert await _questions_version(database) == version + 1
    assert [question.answer for question in await stores.questions.list()] == ["14", "XV"]


async def test_skills_and_lone_categories_of_questions_become_known(stores: Stores) -> None:
    await stores.questions.add([make_question("q1"), make_question("q2", skills=(), category="geography")], source="test")

    assert await stores.skills.list() == [Skill("geography"), Skill("roman numerals")]


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        ({"skills": ("digits", "roman numerls")}, "skills[1]"),
        ({"skills": (), "category": "Roman numeral"}, "category"),
    ],
)
async def test_a_skill_that_looks_misspelt_is_refused_until_it_is_added_as_a_skill(stores: Stores, bad: dict[str, Any], param: str) -> None:
    await stores.questions.add([make_question("q1")], source="test")
    misspelt = make_question("q3", question="Write XIX in digits, please.", **bad)
    skill = misspelt.labels[-1]

    with pytest.raises(InvalidRequest, match=rf"question 'q3' \(Write XIX.*{skill!r}; did you mean 'roman numerals'") as caught:
        await stores.questions.add([make_question("q2"), misspelt], source="test")
    kept = await stores.questions.list()
    await stores.skills.create(Skill(skill))
    meant = await stores.questions.add([misspelt], source="test")

    assert caught.value.param == param
    assert f"consilium skills add '{skill}'" in caught.value.message
    assert kept == [make_question("q1")]
    assert meant == 1


async def test_new_skills_that_come_together_are_not_held_against_each_other(stores: Stores) -> None:
    names = ("high school mathematics", "high school statistics")
    await stores.questions.add([make_question(str(i), skills=(name,)) for i, name in enumerate(names)], source="test")

    assert [skill.name for skill in await stores.skills.list()] == list(names)


async def test_a_question_that_cannot_be_stored_is_named_and_none_is_added(stores: Stores) -> None:
    for bad in (make_question("bad", question="\0"), make_question("bad", skills=("x" * 129,))):
        with pytest.raises(InvalidRequest, match="'bad'"):
            await stores.questions.add([make_question("good"), bad], source="test")
    with pytest.raises(InvalidRequest, match="1 to 128 characters"):
        await stores.questions.add([make_question("x" * 129)], source="test")

    assert await stores.questions.list() == []


async def test_more_questions_than_fit_into_one_statement(stores: Stores) -> None:
    many = [make_question(f"q{number:05d}") for number in range(1201)]
    await stores.questions.add(many, source="test")
    await stores.questions.save_vectors("mini", {question.id: b"\0\0\0\0" for question in many})

    assert await stores.questions.list() == many
    assert len(await stores.questions.vectors("mini")) == 1201


async def test_vectors_belong_to_an_encoder_and_are_overwritten(stores: Stores) -> None:
    await stores.questions.add([make_question()], source="test")
    await stores.questions.save_vectors("mini", {"q1": b"old\0"})
    await stores.questions.save_vectors("mini", {"q1": b"new\0"})
    await stores.questions.save_vectors("large", {"q1": b"big\xff"})

    assert await stores.questions.vectors("mini") == {"q1": b"new\0"}
    assert await stores.questions.vectors("large") == {"q1": b"big\xff"}
    assert await stores.questions.vectors("other") == {}


async def test_vectors_of_a_reworded_question_are_dropped_and_others_stay(stores: Stores) -> None:
    await stores.questions.add([make_question("q1"), make_question("q2")], source="test")
    await stores.questions.save_vectors("mini", {"q1": b"1", "q2": b"2"})

    await stores.questions.add([make_question("q1", question="Other words"), make_question("q2", answer="other")], source="test")

    assert await stores.questions.vectors("mini") == {"q2": b"2"}


async def test_vectors_go_with_their_question(stores: Stores) -> None:
    await stores.questions.add([make_question("q1"), make_question("q2")], source="test")
    await stores.questions.save_vectors("mini", {"q1": b"1", "q2": b"2"})

    await stores.questions.remove("q1")

    assert await stores.questions.vectors("mini") == {"q2": b"2"}


async def test_vectors_of_questions_that_changed_meanwhile_are_not_kept(stores: Stores, database: Database) -> None:
    """A vector that was computed from an old wording must not become the new one's."""
    await stores.questions.add([make_question()], source="test")
    encoded_at = await _questions_version(database)
    await stores.questions.add([make_question(question="Other words")], source="test")

    assert await stores.questions.save_vectors("mini", {"q1": b"old"}, questions_version=encoded_at) == 0
    assert await stores.questions.save_vectors("mini", {"q1": b"new", "gone": b"x"}, questions_version=encoded_at + 1) == 1
    assert await stores.questions.vectors("mini") == {"q1": b"new"}


async def test_one_question_is_put_edited_and_removed_where_nobody_can_come_between(stores: Stores) -> None:
    """Each sees the question as it is under the registry's lock; what the caller raises about it leaves everything as it was."""
    seen: list[LabelledQuestion | None] = []

    def refuse(question: LabelledQuestion | None) -> None:
        seen.append(question)
        raise PreconditionFailed("not this one")

    first = make_question()
    is_new = await stores.questions.put(first, source="test")
    is_new_again = await stores.questions.put(replace(first, answer="XIV"), source="test")
    edited = await stores.questions.edit("q1", lambda question: replace(question, category="numerals"), source="test")
    for refused in (stores.questions.put(first, source="test", require=refuse), stores.questions.remove("q1", require=refuse)):
        with pytest.raises(PreconditionFailed):
            await refused

    assert (is_new, is_new_again) == (True, False)
    assert seen == [edited, edited] == await stores.questions.list() * 2
    assert edited == replace(first, answer="XIV", category="numerals")
    await stores.questions.remove("q1")
    with pytest.raises(NotFound, match="no labelled question 'q1'"):
        await stores.questions.edit("q1", lambda question: question, source="test")
