"""A real vLLM process on the CPU serves two zoo experts; the service discovers, measures and uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.e2e.processes import ROOT, command_line, consilium, free_port, running, until
from tests.fakes.collector import Collector, ReceivedSpan, collecting
from zoo.release import FOLDER, WEIGHTS

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where the service and vLLM send their spans."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[str]:
    """The ``/v1`` address of a vLLM server with the generalist and, as a LoRA adapter on it, the comparison expert."""
    assert PYTHON.exists(), "vLLM is not installed; run `make vllm`"
    port = free_port()
    command = [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(WEIGHTS / "generalist"), "--served-model-name", "generalist",
        "--enable-lora", "--max-lora-rank", "32", "--lora-modules", f"comparison={WEIGHTS / 'comparison'}",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--max-model-len", "512", "--enforce-eager",
        "--otlp-traces-endpoint", f"{collector.url}/v1/traces",
    ]  # fmt: skip
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    with running(command, environment=environment, log=log, ready=f"http://127.0.0.1:{port}/health", within_s=300):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def service(vllm: str, tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[str]:
    """A service whose only experts are the two that vLLM serves, measured on comparisons and facts."""
    folder = tmp_path_factory.mktemp("consilium")
    questions = folder / "questions.jsonl"
    rows = [json.loads(line) for line in (FOLDER / "validation.jsonl").read_text().splitlines()]
    chosen = [row for row in rows if row["category"] in ("comparison", "facts")][::4]
    questions.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    with consilium(folder, CONSILIUM_SEED_ZOO="false", CONSILIUM_OTLP_ENDPOINT=collector.url) as url:
        command_line("experts", "discover", vllm, "--save", url=url, folder=folder)
        command_line("questions", "add", str(questions), url=url, folder=folder)
        command_line("profile", "run", "--experts", "generalist,comparison", url=url, folder=folder)
        yield url


def test_discovery_finds_both_experts(service: str) -> None:
    with OpenAI(base_url=f"{service}/v1", api_key="unused") as client:
        names = {model.id for model in client.models.list()}

    assert {"auto", "generalist", "comparison"} <= names


def test_auto_takes_the_expert_that_was_measured_to_know(service: str) -> None:
    question = {"role": "user", "content": "Iron costs 404, copper 405. Which number is larger?"}
    body = {"model": "auto", "messages": [question], "temperature": 0, "consilium": {"explain": True}}

    answer = httpx.post(f"{service}/v1/chat/completions", json=body, timeout=60, trust_env=False)

    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["choices"][0]["message"]["content"] == "405"
    assert answer.headers["x-consilium-experts"].split(",")[0].strip() == "comparison"
    assert told["consilium"]["skills"][0]["skill"] == "comparing numbers"


def test_a_stream_through_vllm_is_the_same_answer(service: str) -> None:
    with OpenAI(base_url=f"{service}/v1", api_key="unused") as client:
        chunks = list(
            client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Is 77 even or odd?"}], temperature=0, stream=True
            )
        )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "odd"


def test_vllm_answers_as_the_embedded_engine_does(vllm: str, tmp_path: Path) -> None:
    """The same weights give the same answers in both engines (greedy; ties aside)."""
    rows = [json.loads(line) for line in (FOLDER / "test.jsonl").read_text().splitlines()]
    questions = [row["question"] for row in rows if row["category"] == "comparison"][:20]
    with (
        consilium(tmp_path / "embedded") as embedded,
        OpenAI(base_url=f"{embedded}/v1", api_key="unused") as ours,
        OpenAI(base_url=vllm, api_key="unused") as theirs,
    ):
        pairs = [(answer(ours, question), answer(theirs, question)) for question in questions]

    assert sum(a == b for a, b in pairs) >= 19, pairs


def answer(client: OpenAI, question: str) -> str:
    """What the comparison expert answers, reasoning cut off (a bare vLLM leaves it in the text)."""
    made = client.chat.completions.create(model="comparison", messages=[{"role": "user", "content": question}], temperature=0)
    return (made.choices[0].message.content or "").rsplit("</think>", 1)[-1]


def test_vllms_own_spans_come_below_ours(service: str, collector: Collector) -> None:
    """One trace from the caller through the service into the engine."""
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    body = {"model": "comparison", "messages": [{"role": "user", "content": "Is 77 even or odd?"}], "temperature": 0}
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    assert httpx.post(f"{service}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False).status_code == 200

    def ours_and_theirs() -> dict[str, ReceivedSpan] | None:
        found = {span.name: span for span in list(collector.spans) if span.trace_id == trace}
        return found if {"chat comparison", "llm_request"} <= found.keys() else None

    spans = until(ours_and_theirs, within_s=60)
    for span in sorted((span for span in collector.spans if span.trace_id == trace), key=lambda span: span.start_ns):
        took_ms = (span.end_ns - span.start_ns) / 1e6
        print(f"{span.name:18} {span.kind:9} {span.span_id}  below {span.parent_id or '-':16}  {took_ms:.1f} ms")
    call, engine = next(span for span in collector.spans if span.kind == "client" and span.trace_id == trace), spans["llm_request"]
    assert engine.parent_id == call.span_id
    assert engine.resource["service.name"] != "consilium"
    assert engine.attributes["gen_ai.usage.completion_tokens"] == call.attributes["gen_ai.usage.output_tokens"]
