"""What experts declare, read against what is labelled."""

from __future__ import annotations

from domain.experts import ExpertCard, ExpertRole
from routers.declared import DeclaredSkills, read_declarations
from routers.question_index import QuestionIndex
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, labelled


async def read(*cards: ExpertCard, **descriptions: str) -> tuple[DeclaredSkills, QuestionIndex, HashingEncoder]:
    encoder = HashingEncoder()
    index, _ = await QuestionIndex.build(encoder, labelled(), {}, {})
    return await read_declarations(encoder, index, cards, descriptions), index, encoder


async def test_a_labelled_skill_is_claimed_in_the_spelling_of_the_labels() -> None:
    declared, _, _ = await read(card("new", skills=("Capitals ", "addition")))

    assert declared.by_expert == {"new": {"capitals", "addition"}}
    assert declared.skills == ()


async def test_a_categorys_name_claims_its_skills() -> None:
    declared, _, _ = await read(card("new", skills=("Maths",)))

    assert declared.by_expert["new"] == {"addition", "multiplication"}


async def test_a_skill_without_labelled_questions_is_recognised_by_name_description_and_exemplars() -> None:
    cook = card("cook", skills=("cooking",), exemplars=("How long do I boil rice?",))
    declared, index, encoder = await read(cook, cooking="recipes and kitchen work")
    texts = ["How long do I boil noodles?", "cooking", "kitchen work", "Spell 'apple' backwards."]
    similarities = declared.similarities(index.project(encoder.encode_now(texts)))

    assert declared.skills == ("cooking",)
    assert (similarities[:3, 0] > 0.5).all()
    assert similarities[3, 0] < 0.35


async def test_an_exemplar_close_to_labelled_questions_claims_their_skill_and_opens_no_ground() -> None:
    declared, _, _ = await read(card("broad", skills=("wisdom",), exemplars=("What is 12 plus 31?",)))

    assert declared.by_expert["broad"] == {"wisdom", "addition"}
    assert declared.skills == ("wisdom",)
    assert len(declared.evidence) == 1


async def test_exemplars_without_any_declared_skill_open_ground_of_their_own() -> None:
    declared, _, _ = await read(card("cook", exemplars=("How long do I boil rice?",)))

    assert declared.skills == ("questions for cook",)
    assert declared.by_expert["cook"] == {"questions for cook"}


async def test_disabled_experts_and_aggregators_declare_nothing() -> None:
    off = card("off", skills=("cooking",), enabled=False)
    fuser = card("fuser", skills=("fusing",), roles=frozenset({ExpertRole.AGGREGATOR}))
    declared, _, _ = await read(off, fuser)

    assert declared.by_expert == {}
    assert declared.skills == ()


async def test_no_cards_declare_nothing() -> None:
    declared, index, encoder = await read()

    assert declared.similarities(index.project(encoder.encode_now(["text"]))).shape == (1, 0)
