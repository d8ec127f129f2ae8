"""Files: what is known of them is in the database, their contents in a folder, and nothing is ever half there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.batch import Batch, BatchRunner, BatchState, FilePurpose, StoredFile
from domain.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge, StorageError
from experts_registry import file_contents
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.files import HALF_S, ORPHAN_S, FileStore
from orchestrator.batch import ports


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def failing(error: BaseException) -> AsyncIterator[bytes]:
    yield b"begin"
    raise error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, folder: Path, clock: Clock) -> FileStore:
    return FileStore(database, folder, keep_s=100, now=clock)


async def stored(store: FileStore, content: bytes = b"{}\n", **more: Any) -> StoredFile:
    return await store.create("in.jsonl", FilePurpose.BATCH, pieces(content), **more)


async def content_of(store: FileStore, file_id: str) -> bytes:
    file = await store.open(file_id)
    with file:
        return file.read()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def needing(file_id: str, state: BatchState = BatchState.IN_PROGRESS) -> Batch:
    return Batch("batch_1", "/v1/completions", file_id, state, 1.0, 2.0, runner=BatchRunner.SERVICE)


def test_the_store_is_what_the_engine_asks_for(store: FileStore) -> None:
    as_port: ports.BatchFiles = store

    assert as_port


async def test_a_file_comes_back_as_it_was(store: FileStore, folder: Path) -> None:
    made = await store.create("José.jsonl", FilePurpose.BATCH, pieces(b"one\n", b"", b"\0\xff\n"), expires_at=5000.0)

    assert made == StoredFile(made.id, FilePurpose.BATCH, "José.jsonl", 7, 1000.0, 5000.0)
    assert await store.get(made.id) == made
    assert await content_of(store, made.id) == b"one\n\0\xff\n"
    assert names(folder) == [made.id]
    assert (folder / made.id).stat().st_mode & 0o077 == 0


async def test_what_a_batch_writes_is_an_output_file_that_expires(store: FileStore) -> None:
    made = await store.write("batch_1_output.jsonl", pieces(b"x" * 3_000_000, b"y"))

    assert (made.purpose, made.num_bytes, made.expires_at) == (FilePurpose.BATCH_OUTPUT, 3_000_001, 1100.0)
    assert await content_of(store, made.id) == b"x" * 3_000_000 + b"y"


async def test_a_long_or_odd_name_is_kept_as_far_as_it_goes(store: FileStore) -> None:
    made = await store.create("\ud800" + "n" * 300, FilePurpose.BATCH, pieces())

    assert (await store.get(made.id)).filename == "\ufffd" + "n" * 254


async def test_nothing_stays_of_a_file_that_is_too_large(store: FileStore, folder: Path) -> None:
    with pytest.raises(PayloadTooLarge, match="larger than 10 bytes"):
        await store.create("in.jsonl", FilePurpose.BATCH, pieces(b"12345", b"67890", b"1"), max_bytes=10)

    assert names(folder) == []
    assert (await store.create("in.jsonl", FilePurpose.BATCH, pieces(b"12345", b"67890"), max_bytes=10)).num_bytes == 10


@pytest.mark.parametrize("error", [RuntimeError("the caller broke off"), asyncio.CancelledError()])
async def test_nothing_stays_of_a_file_that_was_broken_off(store: FileStore, folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        await store.create("in.jsonl", FilePurpose.BATCH, failing(error))

    assert names(folder) == []
    assert await store.list() == []


@pytest.mark.parametrize("step", ["_write_all", "fsync", "rename"])
async def test_a_full_disk_is_told_and_nothing_stays(store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    if step == "_write_all":
        monkeypatch.setattr(file_contents, step, full)
    elif step == "fsync":
        monkeypatch.setattr(file_contents.os, step, full)
    else:
        monkeypatch.setattr(Path, step, full)
    with pytest.raises(StorageError, match="the disk is full: free some space") as caught:
        await stored(store)

    assert "somewhere" not in caught.value.public
    assert names(folder) == []
    assert await store.list() == []


async def test_a_folder_that_cannot_be_written_is_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="cannot be read or written"):
        await stored(FileStore(database, tmp_path / "taken"))


async def test_nothing_stays_when_the_database_does_not_take_it(store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store.new() as made:
        await made.write(b"x")
        with monkeypatch.context() as broken:
            broken.setattr("experts_registry.files._to_row", lambda _: {"id": None, "purpose": None})
            with pytest.raises(Conflict):
                await made.keep("in.jsonl", FilePurpose.BATCH)

    assert names(folder) == []


async def test_files_are_listed_newest_first_by_pages_and_purpose(store: FileStore, clock: Clock) -> None:
    made = []
    for number in range(4):
        clock.now = 10.0 if number in {1, 2} else float(number)
        made.append(await (store.write("o", pieces()) if number == 3 else stored(store)))
    newest = sorted(made, key=lambda file: (file.created_at, file.id), reverse=True)

    assert await store.list() == newest
    assert await store.list(oldest_first=True) == newest[::-1]
    assert await store.list(limit=2) == newest[:2]
    assert await store.list(limit=2, after=newest[1].id) == newest[2:]
    assert await store.list(after=newest[1].id, oldest_first=True) == [newest[0]]
    assert await store.list(purpose=FilePurpose.BATCH_OUTPUT) == [made[3]]
    assert await store.num_bytes() == 9
    with pytest.raises(NotFound) as caught:
        await store.list(after="file-9")
    assert caught.value.param == "after"


@pytest.mark.parametrize("wrong", ["file-9", "../consilium.db", "", "file-9\0"])
async def test_only_files_that_there_are_can_be_read_and_deleted(store: FileStore, wrong: str) -> None:
    for ask in (store.get, store.open, store.delete):
        with pytest.raises((NotFound, InvalidRequest)):
            await ask(wrong)


async def test_a_deleted_file_is_gone_and_a_reader_reads_on(store: FileStore, folder: Path) -> None:
    made = await stored(store, b"still there")
    reader = await store.open(made.id)
    await store.delete(made.id)

    with reader:
        assert reader.read() == b"still there"
    assert names(folder) == []
    with pytest.raises(NotFound):
        await store.get(made.id)


async def test_a_file_that_a_batch_still_reads_is_not_deleted(store: FileStore, database: Database) -> None:
    made, batches = await stored(store), BatchStore(database)
    await batches.create(needing(made.id))
    with pytest.raises(Conflict, match="the batch batch_1 still reads the file"):
        await store.delete(made.id)
    await batches.enter("batch_1", BatchState.FAILED)

    await store.delete(made.id)


async def test_what_a_batch_wrote_is_no_input(store: FileStore, database: Database) -> None:
    made = await store.write("out.jsonl", pieces())
    with pytest.raises(InvalidRequest, match="has the purpose 'batch_output'") as caught:
        await BatchStore(database).create(needing(made.id))

    assert caught.value.param == "input_file_id"


async def test_content_that_is_on_another_machine_is_told(store: FileStore, folder: Path) -> None:
    made = await stored(store)
    (folder / made.id).unlink()

    with pytest.raises(StorageError, match="must share the data dir's files"):
        await store.open(made.id)
    await store.delete(made.id)


async def test_expired_files_are_swept_unless_a_batch_reads_them(store: FileStore, database: Database, folder: Path, clock: Clock) -> None:
    old, needed, young, kept = [await stored(store, expires_at=at) for at in (1500.0, 1500.0, 2500.0, None)]
    await BatchStore(database).create(needing(needed.id))
    clock.now = 2000.0

    assert await store.sweep() == 1
    assert names(folder) == sorted([needed.id, young.id, kept.id])
    with pytest.raises(NotFound):
        await store.get(old.id)


async def test_what_killed_processes_left_is_swept_when_it_is_old(store: FileStore, folder: Path, clock: Clock) -> None:
    made = await stored(store)
    left: list[tuple[str, Callable[[], float]]] = [
        ("file-half.part", lambda: clock.now - HALF_S - 1),
        ("file-young.part", lambda: clock.now - HALF_S + 60),
        ("file-orphan", lambda: clock.now - ORPHAN_S - 1),
        ("file-newer", lambda: clock.now - ORPHAN_S + 60),
        ("notes.txt", lambda: 0.0),
        (made.id, lambda: 0.0),
    ]
    clock.now = 10 * ORPHAN_S
    for name, moment in left:
        path = folder / name
        path.touch()
        os.utime(path, (moment(), moment()))

    assert await store.sweep() == 2
    assert names(folder) == sorted(["file-young.part", "file-newer", "notes.txt", made.id])


async def test_sweeping_before_the_first_file_finds_nothing(store: FileStore) -> None:
    assert await store.sweep() == 0
