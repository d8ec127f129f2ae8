"""The service does as its OpenAPI document says, on both planes: statuses, content types, headers and shapes of answers, for requests
that schemathesis makes of the document and for right ones; and no request of either kind ends in a 5xx.

``CONSILIUM_TEST_SCHEMA_EXAMPLES`` asks for more requests an operation than CI makes (``make schema-test``).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.app import create_app
from api.metrics import Metrics
from api.services import Services
from api.settings import Settings
from domain.experts import Capability
from tests.e2e.processes import until
from tests.fakes.admin import AdminParts, registry_file
from tests.fakes.services import ADMIN_KEY
from tests.integration.api.conftest import QuietServer

pytestmark = pytest.mark.timeout(900)

EXAMPLES = int(os.environ.get("CONSILIUM_TEST_SCHEMA_EXAMPLES", "8"))
BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@dataclass
class WholeParts(AdminParts):
    """The admin plane's parts, with experts that can do everything and a place for batches."""

    woken: list[None] = field(default_factory=list)

    @asynccontextmanager
    async def bootstrap(self, settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
        async with super().bootstrap(settings, metrics) as services:
            services.batches = cast(Any, SimpleNamespace(service=SimpleNamespace(wake=lambda: self.woken.append(None))))
            yield services


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server in front of a real registry and scripted experts, in a thread of its own."""
    folder = tmp_path_factory.mktemp("schema")
    shutil.copy(registry_file(tmp_path_factory.mktemp("registry")), folder)
    app = create_app(Settings(_env_file=None, data_dir=folder), bootstrap=WholeParts().bootstrap)  # type: ignore[call-arg]
    listener = socket.create_server(("127.0.0.1", 0))
    server = QuietServer(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5, lifespan="on", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()

    def server_has_started() -> bool:
        return server.started

    try:
        until(server_has_started, within_s=60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=f"{url}/admin/api", headers=BEARER, trust_env=False, timeout=60) as http:
            for expert in ("good", "bad", "worse"):
                http.patch(f"/experts/{expert}", json={"capabilities": sorted(Capability)}).raise_for_status()
        yield url
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def api_schema(service: str) -> Any:
    document = httpx.get(f"{service}/openapi.json", trust_env=False, timeout=60).json()
    return schemathesis.openapi.from_dict(document)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_as_documented(api_schema: Any, service: str, subtests: pytest.Subtests, mode: GenerationMode) -> None:
    """For requests that are right by the document, and for requests that are wrong."""
    for found in api_schema.get_all_operations():
        operation = found.ok()
        with subtests.test(operation.label):
            _hold_to_document(operation, service, mode)


def _hold_to_document(operation: Any, service: str, mode: GenerationMode) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def held(case: Any) -> None:
        response = case.call(base_url=service, headers=BEARER, timeout=60)
        case.validate_response(response, checks=CHECKS, headers=BEARER)

    try:
        held()
    except Unsatisfiable:  # it takes nothing that could be wrong
        assert mode is GenerationMode.NEGATIVE


ASK = {"model": "good", "messages": [{"role": "user", "content": "algebra 3?"}]}
EXPERT = {"id": "added", "backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "skills": ["algebra"]}
STRATEGY = {"id": "added", "router": "fixed", "aggregator": "first"}
OUTCOME = {"expert_id": "good", "question_id": "algebra-2", "skills": ["algebra"], "correct": True, "answer": "2"}
AGGREGATOR_OUTCOME = {"expert_id": "bad", "question_id": "algebra-1", "category": "maths", "correct": True}
BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"team": "a"}}

NOT_TRIED = {
    # Of vLLM servers that run: tests/integration/vllm has them.
    ("GET", "/admin/api/workers/{server_id}"),
    ("POST", "/admin/api/workers/{server_id}/start"),
    ("POST", "/admin/api/workers/{server_id}/stop"),
    ("POST", "/admin/api/workers/{server_id}/sleep"),
    ("POST", "/admin/api/workers/{server_id}/wake"),
    ("GET", "/admin/api/workers/{server_id}/logs"),
    # Of a cascade over real routers: tests/integration/admin/test_cascades.py has it.
    ("POST", "/admin/api/strategies/{strategy_id}/calibrate"),
    # A server to look at: tests/integration/admin/test_experts.py has one.
    ("POST", "/admin/api/experts/discover"),
}


class Right:
    """Asks rightly, and holds what is answered to the document."""

    def __init__(self, http: httpx.Client, document: Any) -> None:
        self._http, self._document = http, document
        self.tried: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, *, status: int = 200, query: dict[str, Any] | None = None, **more: Any) -> Any:
        """*path* as the document has it; what stands in its brackets is taken from *more*, the rest is httpx's."""
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        address = path.format(**{name: more.pop(name) for name in names})
        answer = self._http.request(method, address, params=query, **more)
        assert answer.status_code == status, answer.text
        answer.request.read()  # a form is only there while it is sent
        self._document[path][method].validate_response(answer)
        self.tried.add((method, path))
        return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.content


def test_every_right_answer_is_as_documented(api_schema: Any, service: str) -> None:
    """One for each operation: what schemathesis makes finds nothing by its id."""
    with httpx.Client(base_url=service, headers=BEARER, trust_env=False, timeout=60) as http:
        ask = Right(http, api_schema)
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            ask("GET", path)
        ask("GET", "/v1/models/{model_id}", model_id="auto")
        ask("GET", "/v1/models/{model_id}", model_id="good")
        _completions(ask)
        _files_and_batches(ask)
        _registry(ask)
        _measurement(ask)
        _evaluations(ask)
        _keys(ask)
        ask("GET", "/admin/api/workers")

    documented = {(operation.method.upper(), operation.path) for found in api_schema.get_all_operations() for operation in [found.ok()]}
    assert documented - ask.tried == NOT_TRIED


def _completions(ask: Right) -> None:
    for more in (
        {},
        {"consilium": {"explain": True}},
        {"n": 2, "logprobs": True},
        {"model": "consilium/panel", "consilium": {"explain": True}},
    ):
        ask("POST", "/v1/chat/completions", json=ASK | more)
    ask("POST", "/v1/completions", json={"model": "good", "prompt": "algebra 3?", "consilium": {"explain": True}})
    ask("POST", "/v1/route", json=ASK | {"model": "auto"})
    for encoding in ("float", "base64"):
        ask("POST", "/v1/embeddings", json={"model": "auto", "input": ["a", "b"], "encoding_format": encoding})
    traced = until(lambda: ask("GET", "/admin/api/traces", query={"model": "auto"})["data"] or _asked(ask), within_s=60)
    ask("GET", "/admin/api/traces/{trace_id}", trace_id=traced[0]["id"])
    given = ask("POST", "/v1/feedback", json={"request_id": traced[0]["request_id"], "score": 0.5})
    ask("GET", "/admin/api/feedback")
    ask("GET", "/admin/api/feedback/{feedback_id}", feedback_id=given["id"])
    ask("GET", "/admin/api/feedback-profiles")
    ask("POST", "/admin/api/feedback/{feedback_id}/rollback", feedback_id=given["id"])
    ask("POST", "/admin/api/feedback-profiles/{expert_id}/reset", expert_id="good")
    ask("DELETE", "/admin/api/traces/{trace_id}", status=204, trace_id=traced[0]["id"])
    ask("DELETE", "/admin/api/traces", query={"before": 1})


def _asked(ask: Right) -> None:
    """A trace is written a moment after its request."""
    ask("POST", "/v1/chat/completions", json=ASK | {"model": "auto"})


def _files_and_batches(ask: Right) -> None:
    lines = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": ASK}).encode()
    file = ask("POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", lines)})
    ask("GET", "/v1/files", query={"purpose": "batch", "limit": 1})
    ask("GET", "/v1/files/{file_id}", file_id=file["id"])
    assert ask("GET", "/v1/files/{file_id}/content", file_id=file["id"]) == lines
    batch = ask("POST", "/v1/batches", json=BATCH | {"input_file_id": file["id"]})
    ask("GET", "/v1/batches", query={"limit": 1})
    ask("GET", "/v1/batches/{batch_id}", batch_id=batch["id"])
    ask("POST", "/v1/batches/{batch_id}/cancel", batch_id=batch["id"])
    other = ask("POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", lines)})
    ask("DELETE", "/v1/files/{file_id}", file_id=other["id"])


def _registry(ask: Right) -> None:
    for name, one, body in (("experts", "expert_id", EXPERT), ("strategies", "strategy_id", STRATEGY)):
        path = f"/admin/api/{name}"
        ask("GET", path, query={"limit": 1})
        ask("POST", path, status=201, json=body)
        ask("GET", f"{path}/{{{one}}}", **{one: "added"})
        ask("PATCH", f"{path}/{{{one}}}", json={"enabled": False}, **{one: "added"})
        ask("PUT", f"{path}/{{{one}}}", json=body, **{one: "added"})
        ask("DELETE", f"{path}/{{{one}}}", status=204, **{one: "added"})
        ask("PUT", f"{path}/{{{one}}}", status=201, json=body, **{one: "added"})
    ask("POST", "/admin/api/experts/{expert_id}/check", expert_id="good")
    ask("GET", "/admin/api/skills")
    ask("POST", "/admin/api/skills", status=201, json={"name": "baking", "description": "Bread"})
    ask("GET", "/admin/api/skills/{name}", name="baking")
    ask("PATCH", "/admin/api/skills/{name}", name="baking", json={"description": "Cake"})
    ask("PUT", "/admin/api/skills/{name}", name="baking", json={"description": "Rolls"})
    ask("DELETE", "/admin/api/skills/{name}", status=204, name="baking")
    ask("GET", "/admin/api/questions", query={"skill": "algebra"})
    ask("POST", "/admin/api/questions", json={"questions": [{"question": "2 + 2?", "answer": 4, "skills": ["algebra"]}]})
    ask("PUT", "/admin/api/questions/{question_id}", status=201, question_id="new", json={"question": "1 + 1?", "answer": "2"})
    ask("GET", "/admin/api/questions/{question_id}", question_id="new")
    ask("PATCH", "/admin/api/questions/{question_id}", question_id="new", json={"category": "maths", "options": ["1", "2"]})
    ask("DELETE", "/admin/api/questions/{question_id}", status=204, question_id="new")
    kept = ask("POST", "/admin/api/memory", json={"problems": [{"question": f"{n} + 2?", "answer": str(n + 2)} for n in range(3)]})
    ask("GET", "/admin/api/memory", query={"tenant": "_local", "limit": 1})
    ask("GET", "/admin/api/memory/{problem_id}", problem_id=kept["ids"][0])
    ask("DELETE", "/admin/api/memory/{problem_id}", status=204, problem_id=kept["ids"][0])
    ask("GET", "/v1/memory")
    ask("DELETE", "/v1/memory/{problem_id}", status=204, problem_id=kept["ids"][1])
    ask("DELETE", "/v1/memory")
    ask("DELETE", "/admin/api/memory", query={"tenant": "_local"})
    manifest = ask("GET", "/admin/api/manifest").decode()
    ask("POST", "/admin/api/manifest", query={"dry_run": True}, json={"yaml": manifest})


def _measurement(ask: Right) -> None:
    runs = "/admin/api/profile-runs"
    wrong = [OUTCOME | {"expert_id": expert, "correct": False, "answer": answer} for expert, answer in (("bad", "5"), ("worse", "6"))]
    outcomes = {"outcomes": [OUTCOME, *wrong]}
    ask("POST", f"{runs}/import", status=201, json={"aggregator_outcomes": [AGGREGATOR_OUTCOME]})
    imported = ask("POST", f"{runs}/import", status=201, json=outcomes)
    begun = ask("POST", runs, status=202, json={"experts": ["good"], "questions": ["algebra-1"], "max_in_flight": 1})
    until(lambda: ask("GET", f"{runs}/{{run_id}}", run_id=begun["id"])["status"] == "finished", within_s=60)
    ask("GET", runs)
    ask("GET", f"{runs}/{{run_id}}", run_id=imported["id"])
    ask("GET", f"{runs}/{{run_id}}/outcomes", run_id=imported["id"])
    for path in ("profiles", "outcomes", "aggregator-profiles", "aggregator-outcomes", "category-map"):
        ask("GET", f"/admin/api/{path}")
    ask("GET", "/admin/api/profiles/{expert_id}", expert_id="good")
    ask("GET", "/admin/api/aggregator-profiles/{expert_id}", expert_id="bad")
    ask("POST", f"{runs}/{{run_id}}/cancel", status=409, run_id=begun["id"])
    ask("POST", f"{runs}/{{run_id}}/resume", status=409, run_id=begun["id"])
    ask("DELETE", f"{runs}/{{run_id}}", status=204, run_id=begun["id"])
    runs = "/admin/api/aggregator-runs"
    begun = ask("POST", runs, status=202, json={"experts": ["bad"], "max_per_category": 1})
    ask("GET", runs)
    ask("GET", f"{runs}/{{run_id}}", run_id=begun["id"])
    ask("POST", f"{runs}/{{run_id}}/cancel", run_id=begun["id"])
    ask("DELETE", f"{runs}/{{run_id}}", status=204, run_id=begun["id"])


def _evaluations(ask: Right) -> None:
    path = "/admin/api/evaluations"
    questions = [{"question": "Seven apples of algebra 1?", "answer": "1"}, {"question": "A slow clock, algebra 2?", "answer": 2}]
    begun = ask("POST", path, status=202, json={"name": "x", "questions": questions, "strategies": ["panel"], "limit": 2})
    one = f"{path}/{{evaluation_id}}"
    ask("POST", f"{one}/cancel", evaluation_id=begun["id"])
    ask("DELETE", one, status=204, evaluation_id=begun["id"])
    begun = ask("POST", path, status=202, json={"name": "y", "questions": questions, "strategies": ["panel"]})
    until(lambda: ask("GET", one, evaluation_id=begun["id"])["status"] == "finished", within_s=60)
    ask("GET", path)


def _keys(ask: Right) -> None:
    path = "/admin/api/keys"
    ask("POST", path, status=201, json={"id": "team", "limits": {"requests_per_minute": 10}, "expires_at": "2099-12-31"})
    ask("GET", path)
    ask("GET", f"{path}/{{key_id}}", key_id="team")
    ask("PATCH", f"{path}/{{key_id}}", key_id="team", json={"name": "a team"})
    ask("PUT", f"{path}/{{key_id}}", key_id="team", json={"name": "the team"})
    ask("POST", f"{path}/{{key_id}}/rotate", key_id="team", json={"overlap_s": 1.0})
    ask("GET", f"{path}/usage")
    ask("GET", f"{path}/usage", query={"format": "csv"})
    ask("DELETE", f"{path}/{{key_id}}", status=204, key_id="team")
    ask("GET", "/admin/api/audit", query={"limit": 5})
