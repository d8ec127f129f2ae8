"""``consilium eval answers`` and ``consilium admit`` on real experts of the zoo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.evaluation.conftest import Consilium

ZOO = Path(__file__).parents[3] / "zoo"
EXPERTS = ("numerals", "logic", "generalist")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Eight questions of each of two domains."""
    rows = [json.loads(line) for line in (ZOO / "test.jsonl").read_text().splitlines()]
    kept = [row for category in ("numerals", "logic") for row in [row for row in rows if row["category"] == category][:8]]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


def test_strategies_beside_every_baseline(zoo: Consilium, questions: Path, tmp_path: Path) -> None:
    """Really run, at equal numbers of calls; the second time nobody is asked."""
    command = (
        "eval", "answers", questions, "--strategies", "auto,vote", "--experts", ",".join(EXPERTS),
        "--router", "random", "--json", tmp_path / "r.json", "--html", tmp_path / "r.html", "-q",
    )  # fmt: skip

    ran = zoo(*command)
    assert ran.code == 0, ran.err
    first = json.loads((tmp_path / "r.json").read_text())
    again = zoo(*command)

    assert again.code == 0, again.err
    rows = {row["name"]: row for row in first["rows"]}
    assert set(rows) == {
        "auto", "vote", "auto, random", "best single", "random expert", "oracle", "majority vote of 3", "self-consistency × 3",
        "self-MoA, 3 calls", "fixed top-2 MoA, 3 calls", *EXPERTS,
    }  # fmt: skip
    assert rows["auto"]["accuracy"] > 0.8
    assert rows["numerals"]["accuracy"] < 0.7
    assert {rows[name]["calls"] for name in rows if "3" in name} == {3.0}
    assert all(row["num_failed"] == 0 for row in first["rows"])
    assert rows["best single"]["note"] == "generalist: best in the registry's profiles"
    assert {row["expert_id"] for row in first["coverage"]["experts"]} == set(EXPERTS)
    assert json.loads((tmp_path / "r.json").read_text()) == first
    assert "Strategies on real answers" in (tmp_path / "r.html").read_text()


def test_questions_that_the_service_was_measured_on_are_left_out(zoo: Consilium, questions: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (ZOO / "validation.jsonl").read_text().splitlines()]
    known = [json.dumps(row) for row in rows if row["category"] == "logic"][:5]
    questions.write_text(questions.read_text() + "\n".join(known) + "\n")

    ran = zoo(
        "eval",
        "answers",
        questions,
        "--strategies",
        "auto",
        "--experts",
        "numerals,logic",
        "--limit",
        4,
        "--json",
        tmp_path / "r.json",
        "-q",
    )

    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["duplicates"]["measured_on_exact"] >= 5
    assert report["num_questions"] == 4


def test_admit_proposes_the_different_one(zoo: Consilium, questions: Path) -> None:
    """numerals is there: of two others the one that knows the other half is worth adding, with the evidence of its certainty."""
    ran = zoo("admit", questions, "--candidates", "logic,facts", "--beside", "numerals", "--slots", 1, "--json")

    assert ran.code == 0, ran.err
    proposal = json.loads(ran.out)
    assert proposal["proposed"] == ["logic"]
    evidence = {one["expert_id"]: one for one in proposal["evidence"]}
    assert evidence["logic"]["judged_by"] == ["log-probability"]
    assert evidence["logic"]["coverage_gain"] > 0.3
    assert not evidence["facts"]["proposed"]
    assert proposal["coverage_after"] > proposal["coverage_before"]


@pytest.fixture
def essays(questions: Path) -> Path:
    """The same, to be judged by an expert."""
    rows = [json.loads(line) | {"grader": "judge"} for line in questions.read_text().splitlines()]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return questions


def test_a_named_expert_judges_and_is_counted_apart(zoo: Consilium, essays: Path, tmp_path: Path) -> None:
    """None of the zoo's specialists can say yes or no about an answer: that is told, and nothing is made of it."""
    refused = zoo("eval", "answers", essays, "--strategies", "auto", "--experts", "logic")
    unknown = zoo("eval", "answers", essays, "--strategies", "auto", "--experts", "logic", "--judge", "logics")
    ran = zoo(
        "eval", "answers", essays, "--strategies", "auto", "--experts", "numerals", "--judge", "logic", "--json", tmp_path / "r.json", "-q"
    )
    admitted = zoo("admit", essays, "--candidates", "numerals", "--judge", "logic", "--json")

    assert (refused.code, unknown.code) == (2, 2)
    assert "--judge EXPERT" in refused.err
    assert "did you mean 'logic'" in unknown.err
    assert ran.code == 0, ran.err
    judged = json.loads((tmp_path / "r.json").read_text())["judged"]
    assert judged["expert"] == "logic"
    assert judged["num_asked"] > 0
    assert judged["num_verdicts"] + judged["num_unreadable"] + judged["num_failed"] >= judged["num_asked"]
    assert "the judge logic gave" in ran.err
    assert admitted.code == 0, admitted.err
    assert json.loads(admitted.out)["judged"]["num_asked"] <= judged["num_failed"], "what was judged a moment ago is known"


def test_admit_from_a_table_asks_nobody(consilium: Consilium, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    scores = [{"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": 0}, {"a": 0, "b": 0, "c": 1}]
    table.write_text("".join(json.dumps({"question": f"{n}?", "scores": row}) + "\n" for n, row in enumerate(scores)))

    ran = consilium("admit", table, "--outcomes", "--slots", 2)

    assert ran.code == 0, ran.err
    assert "admit a, c" in ran.out


def test_admit_drops_examples_that_are_there_twice_and_tells(consilium: Consilium, tmp_path: Path) -> None:
    """b knows one question, ten times over."""
    table, empty = tmp_path / "t.jsonl", tmp_path / "none.jsonl"
    names = ("Peru", "Chile", "Kenya", "France", "Japan", "Norway")
    rows = [{"question": f"Capital of {name}?", "scores": {"a": 1, "b": 0}} for name in names]
    rows += [{"question": "Capital of Spain?", "scores": {"a": 0, "b": 1}}] * 10
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    empty.write_text('{"question": "Capital of Spain?", "scores": {}}\n')

    ran = consilium("admit", table, "--outcomes", "--json")
    nobody = consilium("admit", empty, "--outcomes")

    assert ran.code == 0, ran.err
    proposal = json.loads(ran.out)
    assert proposal["num_duplicates"] == 9
    assert {one["expert_id"]: one["num_examples"] for one in proposal["evidence"]} == {"a": 7, "b": 7}
    assert (nobody.code, nobody.err.splitlines()[-1][:29]) == (2, "error: there is nobody to adm")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("eval", "answers", "missing.jsonl"), "missing.jsonl"),
        (("eval", "answers", "{questions}", "--strategies", "atuo"), "did you mean 'auto'"),
        (("eval", "answers", "{questions}", "--experts", "numeral"), "did you mean 'numerals'"),
        (("eval", "answers", "{questions}", "--router", "skils"), "did you mean 'skills'"),
        (("eval", "answers", "{questions}", "--router", "menu"), "menu_expert"),
        (("admit", "{questions}", "--candidates", "facts", "--beside", "facts"), "either a candidate or there already"),
    ],
)
def test_bad_input_is_one_line_that_helps(zoo: Consilium, questions: Path, arguments: tuple[str, ...], told: str) -> None:
    ran = zoo(*(argument.format(questions=questions) for argument in arguments))

    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert told in ran.err
