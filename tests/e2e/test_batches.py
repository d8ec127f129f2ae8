"""Batches as a user meets them: the OpenAI client against a real service, which is killed, and whose database is cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from tests.e2e.processes import command_line, served
from tests.fakes.batch_rig import CHAT, chat_line
from tests.fakes.postgres import postgres_server

pytestmark = pytest.mark.timeout(300)

WITHIN_S = 120.0
LOOK_S = 0.02
OVER = frozenset({"completed", "failed", "expired", "cancelled"})


def questions(num: int) -> list[str]:
    """For several experts, no two alike."""
    kinds = ("What is {n} + 268?", "Write {n} in words.", "How many minutes are in {n} hours?", "Which is larger, {n} or 354?")
    return [kinds[number % len(kinds)].format(n=number + 1) for number in range(num)]


def submitted(client: OpenAI, lines: Sequence[dict[str, Any]], **more: Any) -> Batch:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more)


def until(client: OpenAI, batch: Batch, reached: Callable[[Batch], bool], *, within_s: float = WITHIN_S) -> Batch:
    end = time.monotonic() + within_s
    while not reached(batch):
        assert time.monotonic() < end, batch
        assert batch.status not in OVER, batch
        time.sleep(LOOK_S)
        batch = client.batches.retrieve(batch.id)
    return batch


def over(client: OpenAI, batch: Batch, *, within_s: float = WITHIN_S) -> Batch:
    return until(client, batch, lambda now: now.status in OVER, within_s=within_s)


def some_done(num: int) -> Callable[[Batch], bool]:
    return lambda batch: batch.request_counts is not None and batch.request_counts.completed >= num


def rows(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    """The file's lines by custom id, each there once."""
    if file_id is None:
        return {}
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({row["custom_id"] for row in found}) == len(found)
    return {row["custom_id"]: row for row in found}


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def said(body: dict[str, Any]) -> Any:
    """What two answers to one question have in common: all but ids and times."""
    return [choice["message"] for choice in body["choices"]], body["model"], body["usage"]


def many(num: int) -> list[dict[str, Any]]:
    """Votes of three experts each: three calls a line, so that there is a middle."""
    return [chat_line(f"q{number}", text, model="consilium/vote") for number, text in enumerate(questions(num))]


def require_all(client: OpenAI, batch: Batch, lines: Sequence[dict[str, Any]]) -> None:
    """Every line was answered, and stands in the output once, in the input's order."""
    assert (batch.status, counts(batch)) == ("completed", (len(lines), len(lines), 0))
    assert list(rows(client, batch.output_file_id)) == [line["custom_id"] for line in lines]
    assert batch.error_file_id is None


def test_a_batch_is_answered_as_its_requests_are_one_by_one(client: OpenAI) -> None:
    """One expert, a panel with its aggregator, a vote; a line that fails has the error that it would have alone."""
    models = ["auto"] * 12 + ["consilium/panel"] * 4 + ["consilium/vote"] * 4 + ["generalist"] * 2
    lines = [chat_line(f"q{n}", text, model=models[n], temperature=0) for n, text in enumerate(questions(len(models)))]
    wrong = chat_line("wrong", "hello", model="numeral")
    batch = over(client, submitted(client, [*lines[:5], wrong, *lines[5:]], metadata={"for": "a test"}))
    answers, errors = rows(client, batch.output_file_id), rows(client, batch.error_file_id)

    assert (batch.status, counts(batch)) == ("completed", (len(lines) + 1, len(lines), 1))
    assert batch.metadata == {"for": "a test"}
    assert list(answers) == [line["custom_id"] for line in lines]
    for line in lines:
        alone = client.chat.completions.create(**line["body"]).model_dump(exclude_unset=True)
        assert said(answers[line["custom_id"]]["response"]["body"]) == said(alone), line
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**wrong["body"])
    assert errors["wrong"]["response"]["status_code"] == 404
    assert errors["wrong"]["response"]["body"]["error"] == caught.value.body


def test_wrong_lines_are_told_by_number_and_nothing_is_run(client: OpenAI) -> None:
    batch = over(client, submitted(client, [chat_line("x", "hi"), chat_line("x", "ho"), {**chat_line("y", "he"), "method": "GET"}]))

    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data or []] == [(2, "duplicate_custom_id"), (3, "invalid_value")]
    assert counts(batch)[1:] == (0, 0)


def test_a_cancelled_batch_keeps_what_was_answered(client: OpenAI) -> None:
    """Every line is in one of the two files; whoever waits behind it is not held up."""
    lines = many(400)
    batch = until(client, submitted(client, lines), some_done(1))
    waiting = submitted(client, lines[:3])

    client.batches.cancel(batch.id)
    batch = over(client, batch)

    answers, errors = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert batch.status == "cancelled"
    assert counts(batch) == (len(lines), len(answers), len(errors))
    assert {*answers, *errors} == {line["custom_id"] for line in lines}
    assert answers
    assert {row["error"]["code"] for row in errors.values()} == {"batch_cancelled"}
    require_all(client, over(client, waiting), lines[:3])
    with pytest.raises(openai.ConflictError, match="cancelled already"):
        client.batches.cancel(batch.id)


def test_the_command_line_works_beside_a_service_on_the_same_data_dir(zoo: str, zoo_folder: Path, tmp_path: Path) -> None:
    lines = many(20)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = command_line("batch", "run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--json", url=zoo, folder=zoo_folder)

    assert json.loads(told)["lines"] == {"total": 20, "completed": 20, "failed": 0}
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


@contextmanager
def openai_client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def num_calls(batch: Batch) -> int:
    return int((batch.model_extra or {})["consilium"]["num_calls"])


def test_a_service_that_is_killed_in_the_middle_goes_on_when_it_starts_again(tmp_path: Path) -> None:
    """Twice. Every line is answered once, and only what was under way is asked again."""
    lines, batch = many(300), None
    for share in (0.2, 0.5, None):
        with served(tmp_path, CONSILIUM_BATCH_LEASE_S="2") as service, openai_client(service.url) as client:
            batch = submitted(client, lines) if batch is None else client.batches.retrieve(batch.id)
            if share is None:
                batch = over(client, batch)
                require_all(client, batch, lines)
                assert num_calls(batch) <= 3 * len(lines) + 256
                break
            batch = until(client, batch, some_done(round(share * len(lines))))
            assert batch.status == "in_progress"
            service.kill()


async def _executed(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


def executed(url: str, statement: str) -> list[Any]:
    return asyncio.run(_executed(url, statement))


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_two_services_on_one_database_lose_nothing_to_lost_connections_and_kills(tmp_path: Path) -> None:
    """Every connection is cut again and again while one of them works on a batch; then that one is killed, and the other takes its
    next batch over."""
    with ExitStack() as stack:
        database = stack.enter_context(stack.enter_context(postgres_server()).new_database())
        settings = {"CONSILIUM_DATABASE_URL": database, "CONSILIUM_BATCH_LEASE_S": "2"}
        one = stack.enter_context(served(tmp_path, log="one.log", **settings))
        two = stack.enter_context(served(tmp_path, log="two.log", **settings))
        client = stack.enter_context(openai_client(one.url))
        beside = stack.enter_context(openai_client(two.url))
        services = {str(service.process.pid): (service, other) for service, other in ((one, beside), (two, client))}

        lines = many(300)
        batch = submitted(client, lines)
        num_cuts = 0
        for share in (0.1, 0.3, 0.5, 0.7):
            batch = until_with_patience(client, batch, some_done(round(share * len(lines))))
            num_cuts += len(executed(database, CUT))
        require_all(client, until_with_patience(client, batch, lambda now: now.status in OVER), lines)
        assert num_cuts >= 8

        batch = until_with_patience(client, submitted(client, lines), some_done(60))
        (row,) = executed(database, f"SELECT owner FROM batches WHERE id = '{batch.id}'")
        working, other = services[row["owner"].split("-")[-2]]
        working.kill()
        require_all(other, over(other, other.batches.retrieve(batch.id)), lines)


def until_with_patience(client: OpenAI, batch: Batch, reached: Callable[[Batch], bool]) -> Batch:
    """``until``, where a request may meet a connection that was just cut."""
    end = time.monotonic() + WITHIN_S
    while not reached(batch):
        assert time.monotonic() < end, batch
        time.sleep(LOOK_S)
        try:
            batch = client.batches.retrieve(batch.id)
        except openai.InternalServerError:
            continue  # its connection was cut, and it says so
    return batch
