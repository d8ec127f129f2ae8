"""From an answer that a user calls right to the demonstration beside the next question: through the whole service, with real experts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import StorageError
from domain.memory import SolvedProblem
from experts_registry.memory import MemoryStore
from tests.integration.api.test_bootstrap import WordEncoder, running, settings_in, until_ready
from tests.integration.api.test_feedback_teaches import batched, measured

SOLVER = {
    "id": "solver", "router": "skills", "pick": {"kind": "top_k", "k": 1}, "mode": "memory",
    "mode_options": {"agents": 1, "rounds": 1, "write": True, "min_similarity": 0.3},
}  # fmt: skip


def asking(roman: str, **options: Any) -> dict[str, Any]:
    text = f"Write {roman} in Arabic numerals."
    return {"model": "consilium/solver", "messages": [{"role": "user", "content": text}], "consilium": {"explain": True, **options}}


async def asked(http: httpx.AsyncClient, roman: str, *, key: str | None = None, **options: Any) -> dict[str, Any]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await http.post("/v1/chat/completions", json=asking(roman, **options), headers=headers)
    told: dict[str, Any] = answer.raise_for_status().json()
    return {**told["consilium"], "id": answer.headers["x-request-id"], "text": told["choices"][0]["message"]["content"]}


async def say(http: httpx.AsyncClient, request_id: str, *, key: str | None = None, **given: Any) -> dict[str, Any]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await http.post("/v1/feedback", json={"request_id": request_id, **given}, headers=headers)
    told: dict[str, Any] = answer.raise_for_status().json()
    return told


def shown(told: dict[str, Any]) -> list[str]:
    return [one["id"] for one in told["detail"]["memory"]["shown"]]


async def memory_of(http: httpx.AsyncClient, **asked_for: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await http.get("/admin/api/memory", params=asked_for)).json()["data"]
    return rows


async def ready(http: httpx.AsyncClient) -> None:
    await until_ready(http)
    await measured(http)
    (await http.post("/admin/api/strategies", json=SOLVER)).raise_for_status()


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bootstrap.Encoder", WordEncoder)


async def test_an_answer_that_a_user_calls_right_is_shown_beside_the_next_question_like_it(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as http:
        await ready(http)
        first = await asked(http, "MMXXIV")
        unchecked = await asked(http, "MMXXV")
        await say(http, first["id"], correct=True)
        (kept,) = await memory_of(http)
        second = await asked(http, "MMXXV")
        given = await say(http, second["id"], score=0.6)
        stored = (await http.get(f"/admin/api/traces/{given['trace_id']}")).json()
        line = await batched(http, asking("MMXXVI"))
        unlike = await http.post(
            "/v1/route", json={"model": "consilium/solver", "messages": [{"role": "user", "content": "And tomorrow?"}]}
        )

    assert (first["text"], shown(first)) == ("2024", [])
    assert shown(unchecked) == [], "what nobody has vouched for is not shown"
    assert (kept["question"], kept["answer"], kept["source"], kept["expert"]) == (
        "Write MMXXIV in Arabic numerals.", "2024", "feedback", "numerals",
    )  # fmt: skip
    assert kept["skills"] == ["roman numerals"]
    assert shown(second) == [kept["id"]]
    assert shown(stored) == [kept["id"]], "the trace has it, too"
    assert "2024" not in str(stored["detail"]["memory"])
    assert shown(line["response"]["body"]["consilium"]) == [kept["id"]], "and a batch"
    assert unlike.status_code in {200, 503}


async def test_what_is_not_right_or_was_not_asked_to_be_kept_stays_out(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as http:
        await ready(http)
        for request, given in (
            (await asked(http, "XIV"), {"correct": False}),
            (await asked(http, "XV"), {"score": 0.5}),
            (await asked(http, "XVI", mode_options={"write": False}), {"correct": True}),
            (await asked(http, "XVII"), {"correct_expert": "calendar"}),
        ):
            await say(http, request["id"], **given)
        other = await http.post("/v1/chat/completions", json={**asking("XVIII"), "model": "numerals"})
        await say(http, other.headers["x-request-id"], correct=True)

        assert await memory_of(http) == []


async def test_what_is_taken_back_deleted_or_called_wrong_is_never_shown_again(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as http:
        await ready(http)
        for how in ("rolled back", "deleted", "cleared", "called wrong", "traces deleted", "trace deleted"):
            first = await asked(http, "MMXXIV")
            given = await say(http, first["id"], correct=True)
            (kept,) = await memory_of(http)
            assert shown(await asked(http, "MMXXV")) == [kept["id"]], how
            match how:
                case "rolled back":
                    gone = await http.post(f"/admin/api/feedback/{given['id']}/rollback")
                case "deleted":
                    gone = await http.delete(f"/admin/api/memory/{kept['id']}")
                case "cleared":
                    gone = await http.delete("/admin/api/memory", params={"tenant": "_local"})
                case "called wrong":
                    again = await asked(http, "MMXXIV", mode_options={"demonstrations": 0})
                    gone = await http.post("/v1/feedback", json={"request_id": again["id"], "correct": False})
                case "traces deleted":
                    gone = await http.delete("/admin/api/traces", params={"before": time.time()})
                case _:
                    gone = await http.delete(f"/admin/api/traces/{given['trace_id']}")
            assert gone.is_success, how
            assert shown(await asked(http, "MMXXV")) == [], how
            assert await memory_of(http) == []


@pytest.mark.parametrize("how", ["rolled back", "trace deleted"])
async def test_what_is_taken_back_while_it_is_being_let_in_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Who takes it back finds nothing to forget yet."""
    add, meanwhile = MemoryStore.add, list[httpx.Response]()
    async with running(settings_in(tmp_path)) as http:

        async def later(self: MemoryStore, problems: Sequence[SolvedProblem]) -> list[SolvedProblem]:
            (problem,) = problems
            if how == "rolled back":
                meanwhile.append(await http.post(f"/admin/api/feedback/{problem.feedback_id}/rollback"))
            else:
                meanwhile.append(await http.delete(f"/admin/api/traces/{problem.trace_id}"))
            return await add(self, problems)

        monkeypatch.setattr(MemoryStore, "add", later)
        await ready(http)
        await say(http, (await asked(http, "MMXXIV"))["id"], correct=True)

        assert [gone.is_success for gone in meanwhile] == [True]
        assert await memory_of(http) == []
        assert shown(await asked(http, "MMXXV")) == []


async def test_a_trace_whose_problem_could_not_be_forgotten_is_there_to_be_deleted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget, fails = MemoryStore.forget, [True]

    async def failing(self: MemoryStore, **which: str | None) -> int:
        if fails.pop():
            raise StorageError("locked")
        fails.append(False)
        return await forget(self, **which)

    async with running(settings_in(tmp_path)) as http:
        await ready(http)
        given = await say(http, (await asked(http, "MMXXIV"))["id"], correct=True)
        monkeypatch.setattr(MemoryStore, "forget", failing)
        first = await http.delete(f"/admin/api/traces/{given['trace_id']}")
        fails.append(False)
        again = await http.delete(f"/admin/api/traces/{given['trace_id']}")

        assert (first.status_code, again.status_code) == (503, 204)
        assert await memory_of(http) == []


async def test_a_key_never_sees_what_another_has_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings_in(tmp_path)) as http:
        await ready(http)
        keys = {
            name: (await http.post("/admin/api/keys", json={"id": name, "name": name})).raise_for_status().json()["key"]
            for name in ("team-a", "team-b")
        }
        first = await asked(http, "MMXXIV", key=keys["team-a"])
        await say(http, first["id"], key=keys["team-a"], correct=True)

        assert len(shown(await asked(http, "MMXXV", key=keys["team-a"]))) == 1
        assert shown(await asked(http, "MMXXV", key=keys["team-b"])) == []
        for name, num_shown in (("team-a", 1), ("team-b", 0)):
            with monkeypatch.context() as as_key:
                as_key.setitem(http.headers, "authorization", f"Bearer {keys[name]}")
                line = await batched(http, asking("MMXXV"))
            assert len(shown(line["response"]["body"]["consilium"])) == num_shown, "a batch is shown what its key is"
        assert shown(await asked(http, "MMXXV")) == []
        assert [row["tenant"] for row in await memory_of(http)] == ["team-a"]
        assert await memory_of(http, tenant="team-b") == []
        (await http.delete("/admin/api/memory", params={"tenant": "team-b"})).raise_for_status()
        assert len(await memory_of(http, tenant="team-a")) == 1


@pytest.mark.parametrize("changes", [{"trace_content": "off"}, {"trace_content": "hashed"}, {"memory": False}])
async def test_where_words_are_not_kept_feedback_fills_no_memory(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with running(settings_in(tmp_path, **changes)) as http:
        await ready(http)
        first = await asked(http, "MMXXIV")
        await say(http, first["id"], correct=True)

        assert await memory_of(http) == []
        entered = {"tenant": "_local", "problems": [{"question": "Write MMXXIV in Arabic numerals.", "answer": "2024"}]}
        (await http.post("/admin/api/memory", json=entered)).raise_for_status()
        assert len(shown(await asked(http, "MMXXV"))) == ("memory" not in changes), "what was entered by hand is shown all the same"


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with running(settings) as http:
        await ready(http)
        await say(http, (await asked(http, "MMXXIV"))["id"], correct=True)
    async with running(settings) as http:
        await until_ready(http)
        (kept,) = await memory_of(http)
        told = await asked(http, "MMXXV")

    assert shown(told) == [kept["id"]]
    assert kept["used_at"] is None or kept["used_at"] > 0
