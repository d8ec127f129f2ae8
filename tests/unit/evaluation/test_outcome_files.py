"""Reading outcome tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from evaluation.outcomes.files import read_experts, read_outcomes


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def cells(table: OutcomeTable, name: str = "scores") -> list[list[float | None]]:
    width, flat = len(table.expert_ids), getattr(table, name)
    rounded = [None if math.isnan(value) else round(value, 6) for value in flat]
    return [rounded[start : start + width] for start in range(0, len(rounded), width)]


def test_jsonl_with_everything(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        {
            "id": 7,
            "question": "1+1?",
            "task": "sums",
            "skills": ["addition"],
            "scores": {"a": 1, "b": 0.5},
            "price": {"a": 0.01},
            "tokens": {"a": 12, "b": 8},
            "latency_ms": {"b": 3.5},
            "answers": {"a": "2"},
            "something else": 1,
        },
        "",
        {"question": "2+2?", "category": "sums", "scores": {"b": True, "c": None}},
    )

    outcomes = read_outcomes(path)

    table = outcomes.table
    assert table.expert_ids == ("a", "b", "c")
    assert cells(table) == [[1.0, 0.5, None], [None, 1.0, None]]
    assert cells(table, "usd") == [[0.01, None, None], [None, None, None]]
    assert cells(table, "tokens")[0] == [12.0, 8.0, None]
    assert cells(table, "latency_ms")[0] == [None, 3.5, None]
    assert table.question_ids == ("7", "q2")
    assert (table.categories, table.skills) == (("sums", "sums"), (("addition",), ()))
    assert outcomes.answers == ("2", None, None, None, None, None)


def test_columns_can_be_given(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "1?", "scores": {"b": 1.0, "a": 0.0}})

    assert cells(read_outcomes(path, expert_ids=("a", "b", "c")).table) == [[0.0, 1.0, None]]


def test_questions_without_scores_can_be_read(tmp_path: Path) -> None:
    """A test file may leave the scores to others: it can be routed all the same."""
    path = jsonl(tmp_path / "a.jsonl", {"question": "1?"}, {"question": "2?", "scores": {}})

    assert len(read_outcomes(path, expert_ids=("a",)).table) == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ({"scores": {"a": 1}}, "line 2: field 'question': missing"),
        ({"question": " ", "scores": {"a": 1}}, "line 2: field 'question': empty"),
        ({"question": "x", "score": {"a": 1}}, "did you mean 'scores'?"),
        ({"question": "x", "scores": [1]}, "line 2: field 'scores': expected an object"),
        ({"question": "x", "scores": {"a": 1.5}}, "line 2: field 'scores.a': expected a score from 0 to 1"),
        ({"question": "x", "scores": {"a": "good"}}, "line 2: field 'scores.a': expected a number"),
        ('{"question": "x", "scores": {"a": NaN}}', "line 2: field 'scores.a': expected a finite number"),
        ({"question": "x", "scores": {"a": 1}, "usd": {"a": -1}}, "line 2: field 'usd.a': expected a finite number from 0"),
        ({"question": "x", "scores": {"a": 1}, "skills": "sums"}, "line 2: field 'skills': expected a list of texts"),
        ({"question": "x" * 200_001, "scores": {"a": 1}}, "line 2: field 'question': 200001 letters"),
        ("[" * 100_000, "line 2: nested too deeply"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(tmp_path: Path, line: Any, told: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "1?", "scores": {"a": 1}}, line)

    with pytest.raises(InvalidRequest) as error:
        read_outcomes(path)

    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_an_expert_that_is_not_listed_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "1?", "scores": {"qwen-7": 1}})

    with pytest.raises(InvalidRequest, match="did you mean 'qwen-7b'"):
        read_outcomes(path, expert_ids=("qwen-7b", "llama"))


def test_an_empty_file_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")

    with pytest.raises(InvalidRequest, match="holds no question"):
        read_outcomes(tmp_path / "empty.jsonl")
    with pytest.raises(InvalidRequest, match="cannot read"):
        read_outcomes(tmp_path / "missing.jsonl")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.outcomes.files.MAX_LINE_BYTES", 50)
    path = jsonl(tmp_path / "a.jsonl", {"question": "1?", "scores": {"a": 1}}, {"question": "x" * 100, "scores": {"a": 1}})

    with pytest.raises(InvalidRequest, match="line 2: longer than 50"):
        read_outcomes(path)


def test_a_long_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "question,expert,score,task,skills,usd,latency_ms,answer\n"
        '"What, then?",a,1,talk,x;y,0.5,10,"this, that"\n'
        '"What, then?",b,0.25,talk,x;y,,20,\n'
        "1+1?,a,,sums,,,,\n"
    )

    outcomes = read_outcomes(path)

    assert outcomes.table.questions == ("What, then?", "1+1?")
    assert cells(outcomes.table) == [[1.0, 0.25], [None, None]]
    assert cells(outcomes.table, "usd") == [[0.5, None], [None, None]]
    assert outcomes.table.skills == (("x", "y"), ())
    assert outcomes.answers == ("this, that", None, None, None)


def test_a_wide_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,question,task,a,b,usd:a\nq,1+1?,sums,1,0,0.25\nr,1+1?,sums,0,,\n")

    table = read_outcomes(path).table

    assert table.question_ids == ("q", "r")
    assert cells(table) == [[1.0, 0.0], [0.0, None]]
    assert cells(table, "usd") == [[0.25, None], [None, None]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("frage,a\n1?,1\n", "line 1: expected a header with a column 'question'"),
        ("question,a,a\n1?,1,1\n", "line 1: the column 'a' is there twice"),
        ("question,a\n1?,2\n", "line 2: field 'a': expected a score from 0 to 1"),
        ("question,a\n1?,yes\n", "line 2: field 'a': expected a number, found 'yes'"),
        ("question,a\n1?,1,1\n", "line 2: more cells"),
        ("question,expert,score\n1?,,1\n", "line 2: field 'expert': missing"),
        ("question,expert,score\n1?,a,1\n1?,a,0\n", "line 3: field 'expert': 'a' has a score for this question already"),
        ('question,a\n"1?,1\n', "not CSV"),
    ],
)
def test_what_is_wrong_in_a_csv(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)

    with pytest.raises(InvalidRequest) as error:
        read_outcomes(path)

    assert told in str(error.value)


def test_experts_declare_their_costs(tmp_path: Path) -> None:
    path = tmp_path / "experts.json"
    path.write_text(json.dumps([{"id": "a", "usd_per_million_tokens": 0.2, "parameters_b": 7}, {"id": "b"}]))

    experts = read_experts(path)

    assert (experts["a"].usd_per_million_tokens, experts["a"].parameters_b) == (0.2, 7.0)
    assert experts["b"].usd_per_million_tokens is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "expected a list"),
        ([{"name": "a"}], 'expert 1: expected an object with an "id"'),
        ([{"id": "a"}, {"id": "a"}], "expert 2: field 'id'"),
        ([{"id": "a", "parameters_b": "seven"}], "expert 1: field 'parameters_b'"),
    ],
)
def test_what_is_wrong_with_experts(tmp_path: Path, given: Any, told: str) -> None:
    path = tmp_path / "experts.json"
    path.write_text(json.dumps(given))

    with pytest.raises(InvalidRequest) as error:
        read_experts(path)

    assert told in str(error.value)
