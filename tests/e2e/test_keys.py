"""Keys in front of a service as it is deployed: over TLS, where others can reach it, and what its log holds at the end of a day."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.processes import ADMIN_KEY, ROOT, Served, command_line, scripted_expert, served
from tests.fakes.fault_proxy import FaultProxy, Held, Status, fault_proxy

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 60.0
CHAT = "/v1/chat/completions"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
TLS = ROOT / "tests" / "fakes" / "tls"
"""A certificate of its own for localhost and 127.0.0.1, and its key."""
EXPERTS_SECRET = "canary-expert-5b0c7a2e99"
QUESTION = [{"role": "user", "content": "Who are you? #1"}]
ANSWER = "I am expert and was asked #1."


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    log = tmp_path_factory.mktemp("expert") / "expert.log"
    with scripted_expert("expert", log) as address, fault_proxy(lambda: address) as proxy:
        yield proxy


def add_expert(http: httpx.Client, proxy: FaultProxy, **more: str) -> None:
    card = {"id": "expert", "backend": "openai", "model": "expert", "base_url": proxy.base_url, **more}
    http.post("/admin/api/experts", json=card, headers=ADMIN).raise_for_status()


def admin(service: Served, trusts: ssl.SSLContext | bool = True) -> httpx.Client:
    return httpx.Client(base_url=service.url, headers=ADMIN, timeout=30, verify=trusts, trust_env=False)


def secret_of(response: httpx.Response) -> str:
    response.raise_for_status()
    return str(response.json()["key"])


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def test_openai_s_client_over_tls(proxy: FaultProxy, tmp_path: Path) -> None:
    """Plain and streamed; without the certificate nobody is talked to, and plain HTTP is not spoken."""
    files = {"CONSILIUM_TLS_CERT": str(TLS / "certificate.pem"), "CONSILIUM_TLS_KEY": str(TLS / "key.pem")}
    trusted = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
    with served(tmp_path, trusts=trusted, CONSILIUM_SEED_ZOO="false", **files) as service:
        with admin(service, trusted) as http:
            add_expert(http, proxy)
            key = secret_of(http.post("/admin/api/keys", json={"id": "team"}))
        transport = httpx.Client(verify=trusted, trust_env=False)
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, http_client=transport, max_retries=0) as client:
            whole = client.chat.completions.create(model="expert", messages=QUESTION)  # type: ignore[arg-type]
            stream = client.chat.completions.create(model="expert", messages=QUESTION, stream=True)  # type: ignore[arg-type]
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{service.url}/health", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(service.url.replace("https", "http") + "/health", trust_env=False)

    assert service.url.startswith("https://")
    assert (whole.choices[0].message.content, streamed) == (ANSWER, ANSWER)


def test_off_loopback_a_stored_key_is_enough(proxy: FaultProxy, tmp_path: Path) -> None:
    """Created while only this machine could reach the service; then it is what lets others in, and nothing else does."""
    with served(tmp_path, CONSILIUM_SEED_ZOO="false") as service, admin(service) as http:
        add_expert(http, proxy)
        key = secret_of(http.post("/admin/api/keys", json={"id": "team"}))
        assert service.stop() == 0
    with served(tmp_path, CONSILIUM_SEED_ZOO="false", CONSILIUM_HOST="0.0.0.0") as service:
        body = {"model": "expert", "messages": QUESTION}
        without = httpx.post(service.url + CHAT, json=body, timeout=30)
        with_it = httpx.post(service.url + CHAT, json=body, headers={"authorization": f"Bearer {key}"}, timeout=30)

    assert (without.status_code, without.json()["error"]["code"]) == (401, "invalid_api_key")
    assert with_it.json()["choices"][0]["message"]["content"] == ANSWER


def test_a_key_that_is_revoked_while_its_batch_runs(proxy: FaultProxy, tmp_path: Path) -> None:
    """What was asked before is answered; every line that is left fails with 401, once, and the expert is asked no more."""
    num_lines = 6
    body = {"model": "expert", "messages": QUESTION}
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": body} for n in range(num_lines)]
    content = "\n".join(map(json.dumps, lines)).encode()
    with served(tmp_path, CONSILIUM_SEED_ZOO="false") as service, admin(service) as http:
        add_expert(http, proxy)
        http.patch("/admin/api/experts/expert", json={"max_in_flight": 1}).raise_for_status()
        key = secret_of(http.post("/admin/api/keys", json={"id": "team"}))
        proxy.once(Held())
        before = proxy.num_requests
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0) as client:
            file = client.files.create(file=("in.jsonl", content), purpose="batch")
            batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        assert proxy.until_requests(before + 1)
        http.delete("/admin/api/keys/team").raise_for_status()
        until(lambda: http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 401)
        proxy.release()
        until(lambda: http.get(f"/v1/batches/{batch.id}").json()["status"] == "completed")
        done = http.get(f"/v1/batches/{batch.id}").json()
        answered = http.get(f"/v1/files/{done['output_file_id']}/content").text.splitlines()
        failed = [json.loads(line) for line in http.get(f"/v1/files/{done['error_file_id']}/content").text.splitlines()]

    assert len(answered) == proxy.num_requests - before
    assert len(answered) + len(failed) == num_lines
    assert failed
    assert {line["response"]["status_code"] for line in failed} == {401}
    assert {line["response"]["body"]["error"]["code"] for line in failed} == {"invalid_api_key"}


def test_the_log_of_a_day_holds_no_secret(proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At level debug, of a real process: keys are made, used, limited, rotated and revoked, over HTTP and with the command line, and an
    expert's server refuses its own."""
    monkeypatch.setenv("CANARY_KEY", EXPERTS_SECRET)
    limits = {"requests_per_minute": 3}
    with served(tmp_path, CONSILIUM_SEED_ZOO="false", CONSILIUM_LOG_LEVEL="debug") as service, admin(service) as http:
        add_expert(http, proxy, api_key="env:CANARY_KEY")
        secrets = [secret_of(http.post("/admin/api/keys", json={"id": "team", "limits": limits}))]

        def asked(secret: str) -> int:
            body = {"model": "expert", "messages": QUESTION}
            return http.post(CHAT, json=body, headers={"authorization": f"Bearer {secret}"}).status_code

        statuses = [asked(secrets[0]) for _ in range(4)]
        secrets.append(secret_of(http.post("/admin/api/keys/team/rotate", json={"overlap_s": 3600})))
        secrets.append(command_line("keys", "create", "other", "--role", "viewer", url=service.url, folder=tmp_path).strip())
        secrets.append(command_line("keys", "rotate", "other", url=service.url, folder=tmp_path).strip())
        proxy.once(Status(401), Status(500))
        statuses += [asked(secrets[3]), asked(secrets[2]), asked(f"{secrets[3]}x")]
        for path in ("keys", "keys/usage", "keys/usage?format=csv", "audit", "traces", "manifest"):
            assert http.get(f"/admin/api/{path}").status_code == 200
        http.delete("/admin/api/keys/team").raise_for_status()
        statuses.append(asked(secrets[1]))
        assert service.stop() == 0
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert statuses == [200, 200, 200, 429, 502, 401, 401, 401]
    assert b"POST /v1/chat/completions 200" in (tmp_path / "serve.log").read_bytes()
    assert all(secret.startswith("ck-") for secret in secrets)
    found = [secret for secret in (*secrets, ADMIN_KEY, EXPERTS_SECRET) if secret.encode() in written]
    assert found == []
