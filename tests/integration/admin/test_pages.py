"""What guards the admin UI, over HTTP and without a browser."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.body import IN_THREAD_BYTES
from api.endpoints.admin import manifest
from api.rest import Refused, Rest, api_client
from api.settings import Settings
from api.ui.forms import Problems
from api.ui.pages.strategies import FORM
from domain.errors import StorageError
from tests.fakes.admin import AdminParts
from tests.fakes.services import ADMIN_KEY

HERE = "http://localhost"
EXPERT = "/admin/experts/good"


@pytest.fixture
async def visitor(request: pytest.FixtureRequest, parts: AdminParts, filled: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody's browser, without a key; ``indirect`` parameters are settings."""
    shutil.copy(filled, tmp_path)
    changes: dict[str, Any] = getattr(request, "param", {})
    app = create_app(Settings(data_dir=tmp_path, _env_file=None, **changes), bootstrap=parts.bootstrap)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=HERE) as made:
        yield made


def token_in(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


async def log_in(visitor: httpx.AsyncClient, key: str = ADMIN_KEY, target: str = "/admin") -> httpx.Response:
    form = await visitor.get("/admin/login")
    return await visitor.post("/admin/login", data={"key": key, "next": target, "csrf_token": token_in(form.text)})


async def made_key(visitor: httpx.AsyncClient, role: str) -> str:
    answer = await visitor.post("/admin/api/keys", json={"id": role, "role": role}, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    return str(answer.json()["key"])


@pytest.mark.parametrize("path", ["/admin", EXPERT, "/admin/requests?status=error", "/admin/nothing-here"])
async def test_nobody_sees_a_page_without_a_login_and_comes_back_to_it_after(visitor: httpx.AsyncClient, path: str) -> None:
    turned_away = await visitor.get(path)

    assert turned_away.status_code == 303
    form = await visitor.get(turned_away.headers["location"])
    answer = await visitor.post(
        "/admin/login", data={"key": ADMIN_KEY, "csrf_token": token_in(form.text), "next": httpx.URL(str(form.url)).params["next"]}
    )
    assert answer.headers["location"] == path


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "/admin/../x\\", "javascript:alert(1)", "/v1/models"]
)
async def test_a_login_never_leads_to_another_site(visitor: httpx.AsyncClient, target: str) -> None:
    assert (await log_in(visitor, target=target)).headers["location"] == "/admin"


async def test_who_is_logged_in_is_led_on_from_the_login(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor)
    assert (await visitor.get("/admin/login?next=/admin/keys")).headers["location"] == "/admin/keys"
    assert (await visitor.get("/admin/keys")).status_code == 200


async def test_the_session_is_a_cookie_that_no_script_and_no_other_site_can_use(visitor: httpx.AsyncClient) -> None:
    cookie = (await log_in(visitor)).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/admin" in cookie
    assert "secure" not in cookie  # loopback speaks no TLS


@pytest.mark.parametrize("visitor", [{"host": "0.0.0.0", "api_keys": "a-key"}], indirect=True)
async def test_off_loopback_the_cookie_needs_tls(visitor: httpx.AsyncClient) -> None:
    assert "secure" in (await visitor.get("/admin/login")).headers["set-cookie"].lower()


async def test_pages_may_run_no_code_but_ours_and_be_framed_by_nobody(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor)
    for path in ("/admin/login", "/admin/experts", "/admin/nothing-here"):
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"


async def test_a_form_without_the_token_of_the_session_changes_nothing(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor)
    page = (await visitor.get(EXPERT)).text
    elsewhere = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}

    refused = [
        await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no"}),
        await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": "guessed"}),
        await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": token_in(page)}, headers=elsewhere),
        await visitor.post(f"{EXPERT}/enabled", content="enabled=no", headers={"content-type": "text/plain"}),
    ]

    assert [answer.status_code for answer in refused] == [403, 403, 403, 415]
    assert ">disabled<" not in (await visitor.get(EXPERT)).text
    accepted = await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": token_in(page)})
    assert accepted.status_code == 303


async def test_a_form_reaches_no_endpoint_of_the_api(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor)
    assert (await visitor.post("/admin/api/experts", data={"id": "a"}, headers={"authorization": f"Bearer {ADMIN_KEY}"})).status_code == 415
    assert (await visitor.get("/admin/api/experts")).status_code == 401  # the cookie is no key


async def test_a_role_can_do_on_pages_what_it_can_over_the_api(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor, await made_key(visitor, "viewer"))
    page = await visitor.get(EXPERT)

    refused = await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": token_in(page.text)})

    assert page.status_code == 200
    assert refused.status_code == 403
    assert "viewer" in refused.text
    assert (await visitor.get("/admin/audit")).status_code == 403


async def test_a_revoked_key_ends_its_sessions(visitor: httpx.AsyncClient) -> None:
    await log_in(visitor, await made_key(visitor, "editor"))
    assert (await visitor.get("/admin/experts")).status_code == 200

    await visitor.delete("/admin/api/keys/editor", headers={"authorization": f"Bearer {ADMIN_KEY}"})

    assert (await visitor.get("/admin/experts")).status_code == 303


async def test_changes_are_written_down_under_the_key_of_the_session(visitor: httpx.AsyncClient, parts: AdminParts) -> None:
    await log_in(visitor, await made_key(visitor, "editor"))
    page = await visitor.get(EXPERT)
    await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": token_in(page.text)})

    assert parts.services is not None
    entry = (await parts.services.keys.audit.list(limit=1))[0]
    assert (entry.actor, entry.role, entry.method, entry.path) == ("editor", "editor", "PATCH", "/admin/api/experts/good")


@pytest.mark.parametrize("expert_id", ["hf-mistral-7b-instruct", "sk-learn-assistant"])
async def test_a_card_whose_names_look_like_keys_comes_back_as_it_was(visitor: httpx.AsyncClient, expert_id: str) -> None:
    card = {"backend": "openai", "model": "hf-internal-testing/tiny-random-Llama", "base_url": "http://127.0.0.1:9/v1"}
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    address = f"/admin/api/experts/{expert_id}"
    made = (await visitor.post("/admin/api/experts", json={"id": expert_id, **card}, headers=headers)).json()
    await visitor.patch(address, json={"description": "other"}, headers=headers)
    await log_in(visitor)
    page = (await visitor.get(f"/admin/experts/{expert_id}")).text
    entry = re.search(r'name="entry" value="([^"]+)"', page)
    assert entry is not None
    restore = {"csrf_token": token_in(page)}

    changed_back = await visitor.post(f"/admin/experts/{expert_id}/restore", data={**restore, "entry": entry[1]})
    first = (await visitor.get(address, headers=headers)).json()
    await visitor.delete(address, headers=headers)
    undone = await visitor.post(f"/admin/experts/{expert_id}/restore", data=restore)
    second = (await visitor.get(address, headers=headers)).json()

    assert [changed_back.status_code, undone.status_code] == [303, 303]
    assert (first["model"], first["description"]) == (made["model"], made["description"])
    assert (second["id"], second["model"]) == (expert_id, made["model"])


async def test_a_page_that_was_let_in_is_served_to_its_end(visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks of the API is a part of its own request: no second place, and no 503 when the process begins to end meanwhile."""
    await log_in(visitor)
    token = token_in((await visitor.get(EXPERT)).text)
    transport: Any = visitor._transport
    drain, ask, running = transport.app.state.drain, Rest.ask, []

    async def late(self: Rest, *args: Any, **options: Any) -> httpx.Response:
        drain.begin()
        answer = await ask(self, *args, **options)
        running.append(drain.num_running)
        return answer

    monkeypatch.setattr(Rest, "ask", late)
    changed = await visitor.post(f"{EXPERT}/enabled", data={"enabled": "no", "csrf_token": token})

    assert changed.status_code == 303
    assert running == [1]
    assert (await visitor.post(f"{EXPERT}/enabled", data={"enabled": "yes", "csrf_token": token})).status_code == 503


async def test_work_that_outlives_a_page_is_let_in_by_itself(visitor: httpx.AsyncClient, parts: AdminParts) -> None:
    """Each request has an id of its own, so that each trace can be found, and none is let in once the process begins to end."""
    transport: Any = visitor._transport
    assert parts.services is not None
    auth = parts.services.auth
    body = {"model": "good", "messages": [{"role": "user", "content": "algebra 1?"}]}
    async with api_client(transport.app) as client:
        rest = Rest(client, auth, auth.require_admin(f"Bearer {ADMIN_KEY}"), "page-1")
        of_page = [(await rest.ask("POST", "/v1/chat/completions", body=body)).headers["x-request-id"] for _ in range(2)]
        apart = [(await rest.apart().ask("POST", "/v1/chat/completions", body=body)).headers["x-request-id"] for _ in range(2)]
        transport.app.state.drain.begin()
        with pytest.raises(Refused, match="about to stop"):
            await rest.apart().ask("POST", "/v1/chat/completions", body=body)

    assert of_page == ["page-1", "page-1"]
    assert len({*of_page, *apart}) == 3


async def test_feedback_on_a_request_is_about_that_one(visitor: httpx.AsyncClient, parts: AdminParts) -> None:
    """Also where a later request came with the same id."""
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    for text in ("algebra 1?", "algebra 2?"):
        body = {"model": "good", "messages": [{"role": "user", "content": text}]}
        await visitor.post("/v1/chat/completions", json=body, headers={**headers, "x-request-id": "same"})
    assert parts.services is not None
    await parts.services.trace_store.flush()
    older = (await visitor.get("/admin/api/traces", headers=headers)).json()["data"][-1]["id"]
    await log_in(visitor)
    token = token_in((await visitor.get(f"/admin/requests/{older}")).text)

    given = await visitor.post(f"/admin/requests/{older}/feedback", data={"csrf_token": token, "verdict": "wrong"})

    assert "said=given" in given.headers["location"]
    (kept,) = (await visitor.get("/admin/api/feedback", headers=headers)).json()["data"]
    assert kept["trace_id"] == older


@pytest.mark.parametrize("hours", ["abc", "nan", "inf", "1e308", "-1"])
async def test_hours_that_are_none_are_refused(visitor: httpx.AsyncClient, hours: str) -> None:
    await made_key(visitor, "editor")
    await log_in(visitor)
    token = token_in((await visitor.get("/admin/keys/editor")).text)

    assert (await visitor.post("/admin/keys/editor/rotate", data={"csrf_token": token, "hours": hours})).status_code == 400
    assert (await visitor.post("/admin/keys/editor/rotate", data={"csrf_token": token, "hours": "0.5"})).status_code == 200


async def test_a_page_tells_no_more_of_a_fault_than_the_api_and_the_log_all_of_it(
    visitor: httpx.AsyncClient, parts: AdminParts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await log_in(visitor)

    async def fails(**_: Any) -> Any:
        raise StorageError("connect to postgresql://db.internal:5432 failed")

    assert parts.services is not None
    monkeypatch.setattr(parts.services.trace_store, "list", fails)
    page = await visitor.get("/admin/requests")

    assert page.status_code >= 500
    assert "db.internal" not in page.text
    assert "GET /admin/requests: connect to postgresql://db.internal:5432 failed" in caplog.text


async def test_the_strategy_form_has_a_place_for_everything_and_its_page_shows_the_mode(visitor: httpx.AsyncClient) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    made = await visitor.post("/admin/api/strategies", json={"id": "thorough", "mode": "moa", "quorum": 2}, headers=headers)
    await log_in(visitor)
    page = (await visitor.get("/admin/strategies/thorough")).text
    groups = {group["title"]: [one.name for one in group["fields"]] for group in FORM._grouped(Problems())}

    assert made.status_code == 201, made.text
    assert "<dt>mode</dt><dd>moa</dd>" in page
    assert "<dt>quorum</dt><dd>2</dd>" in page
    assert {name.partition(".")[0] for name in groups["Limits"]} == {"max_calls", "timeout_s", "budget"}
    assert groups["How one answer is made"][:2] == ["mode", "mode_options"]


async def test_an_evaluation_runs_behind_its_page(visitor: httpx.AsyncClient, parts: AdminParts) -> None:
    """Its questions are read in a thread, however large the form, and each of its requests has an id of its own."""
    await log_in(visitor)
    token = token_in((await visitor.get("/admin/evaluation/new")).text)
    subjects = ("a ladder against a wall", "two trains on one track", "the price of seven apples", "a clock that is slow")
    lines = [json.dumps({"question": f"{subject}, as algebra {n}?", "answer": str(n)}) for n, subject in enumerate(subjects)]
    form = {"csrf_token": token, "name": "large", "questions": "\n".join(lines), "calls": "2", "notes": "x" * IN_THREAD_BYTES}

    begun = await visitor.post("/admin/evaluation", data=form)
    (run,) = visitor._transport.app.state.evaluations.without_report()  # type: ignore[attr-defined]
    await asyncio.wait_for(run.task, 60)

    assert begun.status_code == 303
    assert run.error is None
    assert parts.services is not None
    await parts.services.trace_store.flush()
    rows = (await visitor.get("/admin/api/traces", headers={"authorization": f"Bearer {ADMIN_KEY}"})).json()["data"]
    assert len(rows) > len(subjects)
    assert len({row["request_id"] for row in rows}) == len(rows)


async def test_a_manifest_is_read_and_written_beside_the_requests(visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand cards take most of a second, in which nobody else would be answered."""
    threads = []
    for name in ("load_manifest", "export"):
        real = getattr(manifest, name)

        def told(*args: Any, real: Any = real) -> Any:
            threads.append(threading.get_ident())
            return real(*args)

        monkeypatch.setattr(manifest, name, told)
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}

    text = (await visitor.get("/admin/api/manifest", headers=headers)).text
    applied = await visitor.post("/admin/api/manifest", json={"yaml": text}, headers=headers)

    assert applied.status_code == 200
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_what_others_wrote_is_shown_as_text(visitor: httpx.AsyncClient) -> None:
    script = "<script>alert(1)</script>"
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    await visitor.patch("/admin/api/experts/good", json={"description": script}, headers=headers)
    await log_in(visitor)
    for path in ("/admin/experts", EXPERT, f"{EXPERT}/edit", f"/admin/experts/{script}", f"/admin/experts?q={script}"):
        assert script not in (await visitor.get(path)).text


async def test_another_host_name_is_served_no_page(visitor: httpx.AsyncClient) -> None:
    assert (await visitor.get("/admin/login", headers={"host": "rebound.example"})).status_code == 403


async def test_what_a_page_needs_besides_is_sent_packed_once(visitor: httpx.AsyncClient) -> None:
    page = (await visitor.get("/admin/login")).text
    for address in re.findall(r'(?:src|href)="(/admin/static/[^"]+)"', page):
        answer = await visitor.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert (await visitor.get(address, headers={"if-none-match": answer.headers["etag"]})).status_code == 304
    assert (await visitor.get("/admin/static/../../session.py")).status_code == 404
    assert (await visitor.get("/admin/static/nothing.js")).status_code == 404
