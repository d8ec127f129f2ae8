"""Labelled questions as JSONL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.labelled import messages_of, parse_labelled, read_labelled, read_labelled_rows, row_of

FULL = LabelledQuestion(
    id="one",
    question="And doubled?",
    answer="10",
    category="arithmetic",
    skills=("addition", "doubling"),
    options=("5", "10"),
    grader="choice",
    history=({"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}),
)


def parse_one(**fields: object) -> LabelledQuestion:
    return parse_labelled(json.dumps({"question": "2+3?", "answer": "5", **fields}))[0][0]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    plain = parse_one()

    path.write_text("".join(json.dumps(row_of(question)) + "\n" for question in (FULL, plain)))

    assert read_labelled(path) == [FULL, plain]


def test_an_id_is_made_from_what_is_asked_and_answered() -> None:
    assert parse_one().id == parse_one(category="x", skills=["y"]).id
    assert len({parse_one().id, parse_one(answer="6").id, parse_one(options=["5", "6"]).id, parse_one(history=FULL.history).id}) == 4


def test_a_number_as_answer_is_taken_as_text() -> None:
    assert parse_one(answer=5).answer == "5"


def test_blank_lines_a_byte_order_mark_and_equal_rows_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    row = '{"question": "2+3?", "answer": "5"}'
    path.write_text(f"\ufeff{row}\n\n{row}\r\n", encoding="utf-8")

    assert len(read_labelled(path)) == 1


def test_fields_that_the_caller_allows_are_handed_back_with_the_row(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "2+3?", "answer": "5", "tricky": true}', encoding="utf-8")

    [(question, row)] = read_labelled_rows(path, also=("tricky",))

    assert (question.answer, row["tricky"]) == ("5", True)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected an object, found a list"),
        ('{"answer": "5"}', "line 2: field 'question': missing"),
        ('{"question": " ", "answer": "5"}', "field 'question': empty"),
        ('{"question": "x", "answer": true}', "field 'answer': expected text, found true or false"),
        ('{"question": "x", "answer": "5", "catgory": "y"}', "field 'catgory': unknown field; did you mean 'category'?"),
        ('{"question": "x", "answer": "5", "zzz": "y"}', "unknown field; known are id, question"),
        ('{"question": "x", "answer": "5", "skills": "y"}', "field 'skills': expected a list of texts, found text"),
        ('{"question": "x", "answer": "5", "skills": ["y", 1]}', r"field 'skills\[1\]': expected text, found a number"),
        ('{"question": "x", "answer": "5", "options": [""]}', r"field 'options\[0\]': expected text, found an empty one"),
        ('{"question": "x", "answer": "5", "grader": "numbr"}', "unknown grader 'numbr'; did you mean 'number'?"),
        ('{"question": "x", "answer": "(", "grader": "regex"}', "field 'answer': not a regular expression"),
        ('{"question": "x", "answer": "5", "history": [{"content": "y"}]}', r"field 'history\[0\].role'"),
        ('{"question": "x", "answer": "5", "history": [{"role": "user", "content": 1}]}', r"field 'history\[0\].content'"),
        ('{"question": "x", "answer": "5", "history": {}}', "expected a list of messages, found an object"),
        ('{"id": "a", "question": "x", "answer": "5"}', "field 'id': 'a' is already the id of another question, on line 1"),
    ],
)
def test_an_error_names_line_and_field(line: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        parse_labelled('{"id": "a", "question": "first", "answer": "1"}\n' + line, source="file.jsonl")


def test_too_many_options_and_an_empty_file_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 26, found 27"):
        parse_one(options=[str(number) for number in range(27)])
    with pytest.raises(InvalidRequest, match="holds no question"):
        parse_labelled("\n\n")


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot read .*nowhere.jsonl"):
        read_labelled(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe4")
    with pytest.raises(InvalidRequest, match=r"latin.jsonl is not UTF-8 \(byte 0\)"):
        read_labelled(tmp_path / "latin.jsonl")


def test_a_question_is_asked_with_its_history_and_lettered_options() -> None:
    assert messages_of(FULL) == (*FULL.history, {"role": "user", "content": "And doubled?\n(A) 5\n(B) 10"})
    assert messages_of(parse_one()) == ({"role": "user", "content": "2+3?"},)
