"""Which skills a query needs."""

from __future__ import annotations

import numpy as np
import pytest

from routers.annotators import Annotation, EmbeddingAnnotator, majority_category, match_skills
from routers.options import SkillsOptions
from routers.question_index import Neighbour
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import holder_for, labelled, query, snapshot_of


async def annotate(*turns: str, **options: float) -> tuple[Annotation, HashingEncoder]:
    encoder, snapshot = HashingEncoder(), snapshot_of()
    index = (await holder_for(snapshot, encoder)).index()
    encoder.batches.clear()
    asked = query(snapshot, *turns)
    return await EmbeddingAnnotator(encoder).annotate(asked, snapshot, index, SkillsOptions(**options)), encoder  # type: ignore[arg-type]


async def test_a_query_like_labelled_questions_has_their_skill_and_category() -> None:
    annotation, _ = await annotate("What is 40 plus 2?")

    assert annotation.skills[0].skill == "addition"
    assert annotation.category == "maths"
    assert annotation.neighbours[0].question.skills == ("addition",)
    assert not annotation.fragment


async def test_misleading_words_do_not_change_the_skill() -> None:
    annotation, _ = await annotate("Spell 'France' backwards.")

    assert annotation.skills[0].skill == "reversing"
    assert annotation.category == "text"


async def test_a_query_like_nothing_known_has_no_skills_but_names_the_nearest() -> None:
    annotation, _ = await annotate("Write a poem about autumn.")

    assert annotation.skills == ()
    assert annotation.category is None
    assert len(annotation.nearest) == 4


async def test_a_fragment_is_read_with_the_turn_before_it_in_one_batch() -> None:
    annotation, encoder = await annotate("What is 40 plus 2?", "and doubled?")

    assert annotation.with_context
    assert annotation.skills[0].skill == "addition"
    assert encoder.batches == [("and doubled?", "What is 40 plus 2?\nand doubled?", "What is 40 plus 2?")]


async def test_a_lone_turn_and_a_clear_one_take_one_encoder_call() -> None:
    _, lone = await annotate("What is 40 plus 2?")
    _, clear = await annotate("Name the capital of Peru.", "and of Chad?", "What is 40 plus 2?")

    assert lone.batches == [("What is 40 plus 2?",)]
    assert len(clear.batches) == 1


async def test_a_fragment_of_a_fragment_is_read_from_the_turn_that_names_the_topic() -> None:
    """Each step back encodes one text that is new: the longer context with the last turn after it."""
    annotation, encoder = await annotate("Name the capital of Peru.", "What is 40 plus 2?", "and 3?", "and doubled?")

    assert annotation.skills[0].skill == "addition"
    assert annotation.text == "What is 40 plus 2?\nand 3?\nand doubled?"
    assert encoder.batches[1:] == [
        ("What is 40 plus 2?", "What is 40 plus 2?\nand 3?", "What is 40 plus 2?\nand 3?", "What is 40 plus 2?\nand 3?\nand doubled?")
    ]


async def test_what_somebody_else_reads_of_a_clear_turn_is_that_turn() -> None:
    clear, _ = await annotate("What is 40 plus 2?", "Name the capital of Kenya.")
    unknown, _ = await annotate("What is 40 plus 2?", "How did you find that out, please?")

    assert clear.text == "Name the capital of Kenya."
    assert unknown.text == "What is 40 plus 2?\nHow did you find that out, please?"


async def test_a_new_topic_leaves_the_turns_before_it() -> None:
    annotation, _ = await annotate("What is 40 plus 2?", "Name the capital of Kenya.")

    assert not annotation.with_context
    assert annotation.skills[0].skill == "capitals"


async def test_a_fragment_after_an_unknown_topic_is_unknown() -> None:
    annotation, _ = await annotate("Write a poem about autumn.", "and doubled?")

    assert annotation.skills == ()


async def test_an_empty_query_is_like_nothing() -> None:
    annotation, encoder = await annotate("   ")

    assert annotation.skills == ()
    assert encoder.batches == []


def test_weights_follow_similarity_and_sum_to_one() -> None:
    names, similarities = ("a", "b", "c", "d"), np.array([0.4, 0.7, 0.67, 0.2], np.float32)
    skills = match_skills(names, similarities, floor=0.35, temperature=0.03)

    assert [match.skill for match in skills] == ["b", "c"]
    assert sum(match.weight for match in skills) == pytest.approx(1)
    assert skills[1].weight / skills[0].weight == pytest.approx(np.exp(-1), rel=1e-3)


def test_nothing_at_the_floor_is_nothing() -> None:
    assert match_skills(("a",), np.array([0.34], np.float32), floor=0.35, temperature=0.03) == ()


def test_the_category_is_that_of_most_similarity_among_questions_with_the_skills() -> None:
    by_skill = {question.skills[0]: question for question in labelled()}
    skills = match_skills(("addition", "capitals"), np.array([0.6, 0.6]), floor=0.3, temperature=0.03)
    near = [Neighbour(by_skill["reversing"], 0.9), Neighbour(by_skill["capitals"], 0.5), Neighbour(by_skill["addition"], 0.6)]

    assert majority_category(near, skills) == "maths"
    assert majority_category(near[:1], skills) is None
