"""The accuracy benchmark: what it counts, and what it sends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.zoo_accuracy import Way, candidates_of, main, measure, parse_arguments, spread
from benchmarks.zoo_scores import Asked, Measured, Reply, accuracy, json_of, oracle_of, routed_right, specialists_of, table_of, targets_of
from domain.skills import LabelledQuestion
from tests.fakes.evaluation import make_questions

ASKED = [
    Asked(LabelledQuestion(f"{category}{n}", f"{n}?", "1", category), tricky=n == 0) for category in ("sums", "dates") for n in range(5)
]


def measured(name: str, right: str, *, experts: str = "", is_expert: bool = False) -> Measured:
    """One reply per question; *right* has a 1 for each right one, *experts* the first letter of who was chosen."""
    chosen = {"s": ("sums",), "d": ("dates", "sums"), " ": ()}
    replies = [
        Reply(one.question.id, mark == "1", experts=chosen[expert], num_calls=len(chosen[expert]))
        for one, mark, expert in zip(ASKED, right, experts or " " * len(right), strict=True)
    ]
    return Measured(name, tuple(replies), 1.0, is_expert)


SUMS = measured("sums", "1111010000", is_expert=True)
DATES = measured("dates", "0000101110", is_expert=True)
AUTO = measured("auto", "1111101110", experts="ssssddsddd")


def test_accuracy_of_everything_of_a_category_and_of_the_misleading() -> None:
    assert accuracy(AUTO, ASKED).num_correct == 8
    assert accuracy(AUTO, ASKED, category="dates").num_correct == 3
    assert (accuracy(AUTO, ASKED, only_tricky=True).num_answered, accuracy(AUTO, ASKED, only_tricky=True).num_correct) == (2, 1)


def test_the_oracle_is_right_where_any_expert_is() -> None:
    assert [reply.correct for reply in oracle_of([SUMS, DATES]).replies] == [True] * 9 + [False]


def test_a_specialist_is_the_expert_of_that_name_else_the_best() -> None:
    assert specialists_of([SUMS, DATES], ASKED) == {"sums": "sums", "dates": "dates"}
    renamed = Measured("calendar", DATES.replies)
    assert specialists_of([SUMS, renamed], ASKED) == {"sums": "sums", "dates": "calendar"}


def test_routing_is_right_when_the_first_expert_is_the_specialist() -> None:
    specialists = {"sums": "sums", "dates": "dates"}

    assert routed_right(AUTO, ASKED, specialists) is not None
    assert routed_right(AUTO, ASKED, specialists).num_correct == 8  # type: ignore[union-attr]
    assert routed_right(SUMS, ASKED, specialists) is None


def test_targets_say_what_was_measured() -> None:
    found = targets_of(AUTO, [SUMS, DATES], ASKED)

    assert [(target.reached, target.measured) for target in found] == [
        (False, "80.0%"),
        (True, "+30.0 over sums"),
        (False, "88.9% of 90.0%"),
    ]


def test_targets_are_reached_at_their_bounds() -> None:
    best = measured("auto", "1111111110")

    assert [target.reached for target in targets_of(best, [SUMS, DATES], ASKED)] == [True, True, True]


def test_the_table_and_its_json_have_a_row_for_each_way() -> None:
    specialists = {"sums": "sums", "dates": "dates"}
    rows = [AUTO, SUMS, oracle_of([SUMS, DATES])]

    table = table_of(rows, ASKED, specialists)
    data = json.loads(json.dumps(json_of(rows, ASKED, specialists, targets_of(AUTO, [SUMS], ASKED))))

    assert table.columns[2:4] == ("sums", "dates")
    assert [row[0] for row in table.rows] == ["auto", "sums", "oracle"]
    assert [row["overall"]["num_correct"] for row in data["rows"]] == [8, 5, 9]
    assert data["rows"][0]["calls_per_answer"] == 1.5
    assert data["rows"][2]["wall_s"] is None


def test_a_limit_takes_questions_from_the_whole_file() -> None:
    assert spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert spread([1, 2], None) == [1, 2]


def client_of(handle: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(handle))


async def test_each_question_is_sent_once_with_options_and_its_own_seed_and_graded() -> None:
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        bodies.append(body)
        text = "2" if body["messages"][-1]["content"] == "1+1?" else "wrong"
        headers = {"x-consilium-experts": "sums, dates", "x-consilium-calls": "3"}
        return httpx.Response(200, json={"choices": [{"message": {"content": text}}]}, headers=headers)

    asked = [Asked(question) for question in make_questions(3)]
    async with client_of(answer) as client:
        found = await measure(client, Way("random", "consilium/single", {"router": "random"}, seeded=True), asked, concurrency=2)

    assert [reply.correct for reply in found.replies] == [False, True, False]
    assert (found.replies[0].experts, found.replies[0].num_calls) == (("sums", "dates"), 3)
    assert sorted(body["consilium"]["seed"] for body in bodies) == [0, 1, 2]
    assert {(body["model"], body["consilium"]["router"]) for body in bodies} == {("consilium/single", "random")}


async def test_what_is_no_answer_counts_as_wrong_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        match json.loads(request.content)["messages"][-1]["content"]:
            case "0+1?":
                return httpx.Response(503, json={"error": {"message": "no expert"}})
            case "1+1?":
                raise httpx.ConnectError("refused")
            case _:
                return httpx.Response(200, text="<html>")

    asked = [Asked(question) for question in make_questions(3)]
    async with client_of(fail) as client:
        found = await measure(client, Way("auto", "auto"), asked, concurrency=1)

    assert (found.num_failed, accuracy(found, asked).num_correct) == (3, 0)
    assert "3 failed, the first with 503" in capsys.readouterr().err


async def test_only_experts_that_may_answer_alone_are_asked_alone() -> None:
    def models(request: httpx.Request) -> httpx.Response:
        kinds = {
            "auto": {"kind": "strategy"},
            "sums": {"kind": "expert", "roles": ["candidate"]},
            "fuser": {"kind": "expert", "roles": ["aggregator"]},
        }
        return httpx.Response(200, json={"data": [{"id": name, "consilium": about} for name, about in kinds.items()]})

    async with client_of(models) as client:
        assert await candidates_of(client) == ["sums"]


async def test_a_missing_file_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = await main(parse_arguments(["--questions", str(tmp_path / "none.jsonl")]))

    assert status == 2
    assert capsys.readouterr().err.startswith("error: cannot read ")
