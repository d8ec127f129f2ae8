"""The pure parts of the admin plane: which questions are asked, which cards a server's models become, patches, tags, cursors."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.endpoints.admin.discovery import found_models
from api.endpoints.admin.question_choice import choose
from api.endpoints.admin.resources import decode_cursor, encode_cursor, etag_of, merged
from domain.errors import InvalidRequest
from domain.experts import Backend, ExpertCard
from domain.skills import LabelledQuestion
from workers.discovery import DiscoveredModel

SKILLS = ("a", "b", "c")
question_sets = st.lists(st.sampled_from(SKILLS), max_size=40).map(
    lambda skills: [LabelledQuestion(str(number), "?", "!", skills=(skill,)) for number, skill in enumerate(skills)]
)


@given(question_sets, st.integers(1, 50))
def test_a_limit_is_kept_and_shared_fairly(questions: list[LabelledQuestion], limit: int) -> None:
    """As many as there are up to the limit; no skill gets two more than another that had more to give; the order stays."""
    chosen = choose(questions, limit=limit)

    assert len(chosen) == min(limit, len(questions))
    assert chosen == [question for question in questions if question in chosen]
    taken = {skill: sum(q.skills == (skill,) for q in chosen) for skill in SKILLS}
    given_ = {skill: sum(q.skills == (skill,) for q in questions) for skill in SKILLS}
    assert all(taken[x] <= taken[y] + 1 for x in SKILLS for y in SKILLS if taken[y] < given_[y])


@given(question_sets, st.integers(1, 20))
def test_a_larger_limit_contains_the_smaller(questions: list[LabelledQuestion], limit: int) -> None:
    smaller, larger = choose(questions, limit=limit), choose(questions, limit=limit + 1)

    assert {q.id for q in smaller} <= {q.id for q in larger}


def test_a_question_without_skills_is_chosen_by_its_category() -> None:
    questions = [LabelledQuestion("1", "?", "!", category="law"), LabelledQuestion("2", "?", "!")]

    assert [q.id for q in choose(questions, skills=["law"])] == ["1"]


@pytest.mark.parametrize(
    ("model", "expert_id"),
    [
        ("org/Llama 3.1:8B", "llama-3.1-8b"),
        ("plain", "plain"),
        ("___", "model"),
        ("x" * 90, "x" * 64),
        ("a/b/", "b"),
        ("org/Auto", "auto-2"),
    ],
)
def test_ids_are_made_of_model_names(model: str, expert_id: str) -> None:
    (found,) = found_models([DiscoveredModel(model)], "http://h/v1", None, [])

    assert (found.card.id, found.card.model) == (expert_id, model)


def test_models_of_one_name_get_ids_of_their_own() -> None:
    taken = [ExpertCard("m", Backend.EMBEDDED, "m")]

    found = found_models([DiscoveredModel("x/m"), DiscoveredModel("y/m")], "http://h/v1", None, taken)

    assert [row.card.id for row in found] == ["m-2", "m-3"]


def test_a_numbered_id_is_no_longer_than_any_other() -> None:
    taken = [ExpertCard("x" * 64, Backend.EMBEDDED, "m")]

    (found,) = found_models([DiscoveredModel("x" * 90)], "http://h/v1", None, taken)

    assert found.card.id == "x" * 62 + "-2"


def test_a_model_that_is_listed_twice_is_one() -> None:
    found = found_models([DiscoveredModel("m"), DiscoveredModel("m")], "http://h/v1", None, [])

    assert [row.card.id for row in found] == ["m"]


def test_a_model_is_known_by_server_and_name() -> None:
    """The same name on another server is another expert."""
    known = [ExpertCard("mine", Backend.OPENAI, "m", base_url="http://h/v1/")]

    same = found_models([DiscoveredModel("m")], "http://h/v1", None, known)
    other = found_models([DiscoveredModel("m")], "http://other/v1", None, known)

    assert (same[0].state, same[0].card.id) == ("known", "mine")
    assert other[0].state == "new"


@pytest.mark.parametrize(
    ("current", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_patches_are_merge_patches(current: dict[str, object], patch: dict[str, object], result: dict[str, object]) -> None:
    """The examples of RFC 7396, appendix A, that have an object on both sides."""
    assert merged(current, patch) == result


@given(st.text(min_size=1))
def test_cursors_carry_any_key(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    assert decode_cursor(encode_cursor(key)) == key


@pytest.mark.parametrize("cursor", ["%", "a", "/w==", "/w"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor(cursor)


def test_tags_tell_states_apart() -> None:
    """Equal content has one tag whatever the order of its keys; other content has another."""
    assert etag_of({"a": 1, "b": 2}) == etag_of({"b": 2, "a": 1}) != etag_of({"a": 1, "b": 3})


async def test_the_admin_plane_is_in_the_published_schema(client: httpx.AsyncClient) -> None:
    """Paths, bodies and query parameters, in a document whose references all resolve."""
    schema = (await client.get("http://localhost/openapi.json")).json()

    create = schema["paths"]["/admin/api/experts"]["post"]
    listed = schema["paths"]["/admin/api/traces"]["get"]
    body = create["requestBody"]["content"]["application/json"]["schema"]
    assert "base_url" in body["properties"]
    assert "$ref" not in str(body)
    assert {"expert", "limit", "cursor"} <= {parameter["name"] for parameter in listed["parameters"]}
