"""Commands that evaluate, as typed, in this process; and a service with a small part of the zoo for them to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
import yaml

from api import bootstrap
from api.app import create_app
from api.cli.main import run
from api.settings import Settings
from domain.evaluation import AggregatorOutcome, QuestionOutcome
from domain.skills import LabelledQuestion
from experts_registry.database import Database
from experts_registry.seed import seed_if_empty
from tests.fakes.nearest import NearestRouter
from tests.fakes.services import ADMIN_KEY
from zoo import release

ZOO_EXPERTS = ("numerals", "logic", "facts", "generalist", "aggregator")
ZOO_CATEGORIES = ("numerals", "logic", "facts")
QUESTIONS_OF_EACH = 20
READY_WITHIN_S = 100.0


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Consilium = Callable[..., Ran]


@pytest.fixture(scope="session")
def encoder_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the encoder's model is built once for all tests."""
    return tmp_path_factory.mktemp("encoder")


@pytest.fixture
def consilium(tmp_path: Path, encoder_cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Consilium:
    """``consilium("eval", "routing", …)``, on a data dir of its own, with one router that learns."""
    monkeypatch.chdir(tmp_path)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "cache").symlink_to(encoder_cache)
    monkeypatch.setenv("CONSILIUM_DATA_DIR", str(data_dir))
    monkeypatch.setattr("api.cli.connection.DEFAULT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(bootstrap, "LEARNED", {"nearest": NearestRouter})

    def typed(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return typed


class _Server(uvicorn.Server):
    """Runs in a thread, where signals cannot be handled."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="session")
def zoo_url(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Iterator[str]:
    """A service on loopback whose registry holds five experts of the zoo, measured on sixty questions."""
    data_dir = tmp_path_factory.mktemp("zoo")
    (data_dir / "cache").symlink_to(encoder_cache)
    (data_dir / "admin.key").write_text(ADMIN_KEY)
    settings = Settings(data_dir=data_dir, seed_zoo=False, _env_file=None)
    asyncio.run(_fill(settings))
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        _wait_until_ready(url)
        yield url
    finally:
        server.should_exit = True
        thread.join(READY_WITHIN_S)


def _wait_until_ready(url: str) -> None:
    """A service that still loads answers too slowly for a command's first look."""
    give_up = time.monotonic() + READY_WITHIN_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/ready", timeout=10, trust_env=False).status_code == 200:
                return
        assert time.monotonic() < give_up
        time.sleep(0.1)


async def _fill(settings: Settings) -> None:
    manifest = yaml.safe_load(release.manifest_text())
    manifest["experts"] = [card for card in manifest["experts"] if card["id"] in ZOO_EXPERTS]
    left_out = {"planner", "judge"}
    manifest["strategies"] = [
        strategy for strategy in manifest["strategies"] if left_out.isdisjoint(map(str, strategy.get("mode_options", {}).values()))
    ]
    rows = [
        row
        for category in ZOO_CATEGORIES
        for row in [r for r in release.labelled_questions() if r["category"] == category][:QUESTIONS_OF_EACH]
    ]
    questions = [
        LabelledQuestion(r["id"], r["question"], r["answer"], r["category"], tuple(r["skills"]), grader=r.get("grader")) for r in rows
    ]
    ids = {question.id for question in questions}
    outcomes = [
        QuestionOutcome(r["expert_id"], r["question_id"], tuple(r["skills"]), r["category"], r["correct"], r["answer"])
        for r in release.outcomes()
        if r["expert_id"] in ZOO_EXPERTS and r["question_id"] in ids
    ]
    aggregated = [
        AggregatorOutcome(r["expert_id"], r["question_id"], r["category"], r["correct"], r["answer"]) for r in release.aggregator_outcomes()
    ]
    database = Database.connect(settings.database)
    await database.upgrade()
    await seed_if_empty(database, json.dumps(manifest), questions, outcomes, [a for a in aggregated if a.expert_id in ZOO_EXPERTS])
    await database.close()


@pytest.fixture
def zoo(consilium: Consilium, zoo_url: str, monkeypatch: pytest.MonkeyPatch) -> Consilium:
    """``consilium`` that talks to the service with the zoo."""
    monkeypatch.setenv("CONSILIUM_URL", zoo_url)
    monkeypatch.setenv("CONSILIUM_KEY", ADMIN_KEY)
    return consilium
