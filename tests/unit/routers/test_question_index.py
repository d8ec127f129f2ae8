"""Labelled questions, searchable."""

from __future__ import annotations

import numpy as np

from domain.skills import LabelledQuestion
from routers.question_index import QuestionIndex
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import labelled


async def build(questions: list[LabelledQuestion] | None = None, **known: bytes) -> tuple[QuestionIndex, dict[str, bytes], HashingEncoder]:
    encoder = HashingEncoder()
    questions = labelled() if questions is None else questions
    index, made = await QuestionIndex.build(encoder, questions, {"addition": "sums", "juggling": ""}, known)
    return index, made, encoder


async def test_the_nearest_questions_come_first() -> None:
    index, _, encoder = await build()
    found = index.search(encoder.encode_now(["What is 12 plus 31?"])[0], 3)

    assert found[0].question.question == "What is 12 plus 30?"
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
    assert len(found) == 3


async def test_there_are_never_more_neighbours_than_questions() -> None:
    index, _, encoder = await build(labelled()[:2])

    assert len(index.search(encoder.encode_now(["text"])[0], 10)) == 2


async def test_similarity_is_highest_for_the_skill_of_like_questions() -> None:
    index, _, encoder = await build()
    similarities, _ = index.compare(index.project(encoder.encode_now(["Name the capital of Oman.", "Spell 'pear' backwards."])))

    assert [index.skills[i] for i in similarities.argmax(axis=1)] == ["capitals", "reversing"]
    assert similarities.max() <= 1.0001


async def test_vectors_that_are_known_are_not_made_again() -> None:
    _, made, _ = await build()
    index, again, encoder = await build(None, **made)

    assert len(made) == 16
    assert again == {}
    assert all("12 plus 30" not in text for batch in encoder.batches for text in batch)
    assert index.search(encoder.encode_now(["What is 12 plus 30?"])[0], 1)[0].similarity > 0.999


async def test_a_known_vector_of_another_length_is_made_again() -> None:
    _, made, _ = await build(None, **{"addition-0": b"\x00" * 8})

    assert np.frombuffer(made["addition-0"], "<f4").shape == (64,)


async def test_questions_without_skill_and_category_are_left_out_and_a_category_stands_in_for_skills() -> None:
    index, made, _ = await build([LabelledQuestion("1", "What?", ""), LabelledQuestion("2", "Where?", "", category="places")])

    assert index.skills == ("places",)
    assert set(made) == {"2"}


async def test_an_empty_index_answers_everything_with_nothing() -> None:
    index, made, encoder = await build([])
    vector = encoder.encode_now(["text"])

    assert made == {}
    assert index.search(vector[0], 3) == []
    assert index.compare(index.project(vector))[0].shape == (1, 0)


async def test_the_nearest_name_is_among_registered_and_labelled_skills() -> None:
    index, _, encoder = await build()

    assert index.nearest_name(encoder.encode_now(["juggling balls"])[0])[0] == "juggling"  # type: ignore[index]
    assert index.nearest_name(encoder.encode_now(["multiplication"])[0])[1] > 0.999  # type: ignore[index]
