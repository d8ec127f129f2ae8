"""The compose stack, really run. The tests are one story and run in this order; ``make compose-test`` runs them."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from tests.compose.engine import BUILD_S, ROOT, Compose, EngineFailed, run
from tests.compose.stack import ON_VLLM, WORKERS, Stack, batch_file, body

MAX_IMAGE_BYTES = 2.5e9
MAX_START_S = 20.0
UP_S = 900.0
"""Longest way up: three vLLM servers on two cores take about two minutes."""
MIN_RIGHT = 0.85
"""Of the zoo's test questions for experts on vLLM; `auto` answers 95 % of all."""
_KILL_OTHERS = """
import os, signal
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid()):  # not init: nothing in the container can kill that
        os.kill(int(name), signal.SIGKILL)
"""
_HOLD = """
import os, socket, time
head = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", "content-length: 100"]
head.append("authorization: Bearer " + os.environ["CONSILIUM_API_KEYS"])
held = socket.create_connection(("127.0.0.1", 8080))
held.sendall(("\\r\\n".join(head) + "\\r\\n\\r\\n{").encode())
time.sleep(60)
"""
"""A request whose body never comes: the replica that it is sent to drains for as long as it may."""
PREVIOUS_RELEASE = Path(__file__).parent / "previous_release.sql"
"""A dump of PostgreSQL by a service at migration 0003: two experts, three questions, a profile, two traces."""


def test_missing_secrets_are_named(stack: Stack, tmp_path: Path) -> None:
    (nothing := tmp_path / "env").touch()
    bare = Compose(_without_files(stack.compose), project="none", files=[ROOT / "compose.yaml"], env={}, log=stack.logs / "commands.log")
    for name in [name for name in bare.env if name.startswith("STACK_")]:
        del bare.env[name]

    with pytest.raises(EngineFailed, match=r"make env"):
        bare("--env-file", str(nothing), "config")


def test_up_from_nothing_to_right_answers_on_vllm(stack: Stack) -> None:
    began = time.monotonic()
    stack.compose("build", timeout_s=BUILD_S)
    built = time.monotonic()
    stack.compose("up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("db", "api", *WORKERS, timeout_s=UP_S)
    up = time.monotonic()
    stack.tell(f"built in {built - began:.0f} s; from nothing to healthy in {up - built:.0f} s")

    questions = [json.loads(line) for line in (ROOT / "zoo/test.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row for row in questions if row["category"] in ON_VLLM][::5]
    before = stack.served_by_vllm()
    experts: Counter[str] = Counter()
    num_right = num_fallbacks = 0
    with stack.client() as client:
        for row in asked:
            got = client.post("/v1/chat/completions", json=body(row["question"]))
            assert got.status_code == 200, got.text
            if "x-consilium-fallback" in got.headers:  # like nothing known, which a few questions that mean to mislead are
                num_fallbacks += 1
                assert got.headers["x-consilium-experts"] == "generalist"
            num_right += got.json()["choices"][0]["message"]["content"].strip() == row["answer"]
            experts.update(got.headers["x-consilium-experts"].split(","))
    served = stack.served_by_vllm() - before
    answer, expert = stack.ask("Write MCMXCIV in Arabic numerals.")
    stack.tell(f"auto: 'Write MCMXCIV in Arabic numerals.' -> {answer!r} by {expert}")
    stack.tell(f"auto: {num_right} of {len(asked)} right, {num_fallbacks} by fallback; {served:.0f} answers from vLLM; {dict(experts)}")

    assert (answer, expert) == ("1994", "numerals")
    assert num_right >= MIN_RIGHT * len(asked)
    assert num_fallbacks <= len(asked) // 20, "these are questions that somebody was measured on, or declares"
    assert served >= sum(count for expert, count in experts.items() if expert in ON_VLLM)
    assert {"arithmetic", "numerals", "sequences", "comparison"} <= experts.keys()


def test_embedded_experts_answer_the_rest(stack: Stack) -> None:
    assert stack.ask("I land in Kenya on Friday. What is its capital?") == ("Nairobi", "facts")


def test_image_is_small_and_starts_fast(stack: Stack) -> None:
    size = int(run(["docker", "image", "inspect", "-f", "{{.Size}}", "consilium:compose-test"]))
    stack.compose("up", "-d", "--no-deps", "--force-recreate", "api")
    began = time.monotonic()
    stack.until_ready(stack.url, timeout_s=120)
    start_s = time.monotonic() - began
    stack.tell(f"image {size / 1e9:.2f} GB, ready {start_s:.1f} s after its start")

    assert size < MAX_IMAGE_BYTES
    assert start_s < MAX_START_S


@pytest.mark.parametrize("service", ["api", *WORKERS, "db"])
def test_containers_have_no_rights(stack: Stack, service: str) -> None:
    container = stack.compose.container(service)
    host = container.facts["HostConfig"]
    processes = run(["docker", "top", container.id, "-eo", "pid,uid,args"]).splitlines()[1:]
    users = {line.split()[1]: line for line in processes}
    if service == "db":  # init waits as root; the server does not run as root
        users.pop("0")

    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert "0" not in users, users
    with pytest.raises(EngineFailed, match="Read-only file system"):
        stack.compose.inside(service, "sh", "-c", "echo > /usr/here")


def test_a_replica_that_is_killed_under_load_is_not_missed(stack: Stack) -> None:
    stack.compose("--profile", "replicas", "up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("api", "api-2", "gateway", "redis", timeout_s=UP_S)
    killed = stack.compose.container("api-2")

    with stack.load(stack.gateway_url) as outcome:
        time.sleep(5)
        stack.compose.inside("api-2", "python", "-c", _KILL_OTHERS)
        time.sleep(5)
        stack.compose.wait_healthy("api-2", timeout_s=120)
        back = stack.compose.container("api-2")
        time.sleep(5)
    stack.tell(f"replica killed under load: {dict(outcome.counts)}, slowest {outcome.slowest_s:.1f} s")

    assert back.started_at != killed.started_at
    assert outcome.counts["right"] > 50
    assert outcome.failures == {}


def test_questions_that_a_draining_replica_refuses_are_asked_at_the_other(stack: Stack) -> None:
    """It answers 503 from the moment it is told to stop, and the gateway's checks find that out seconds later."""
    stack.compose("--profile", "replicas", "up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("api", "api-2", "gateway", timeout_s=UP_S)
    drained = stack.compose.container("api-2")

    with stack.load(stack.gateway_url) as outcome, ThreadPoolExecutor(1) as aside:
        run(["docker", "exec", "--detach", drained.id, "python", "-c", _HOLD])
        time.sleep(3)
        began = time.monotonic()
        stopped = aside.submit(stack.compose, "--profile", "replicas", "stop", "api-2")
        time.sleep(8)  # the checks have taken it out by then, and it still drains
        num_refused = stack.num_refused("api-2")
        stopped.result()
        stop_s = time.monotonic() - began
        exit_code = stack.compose.container("api-2").state["ExitCode"]
        stack.compose("--profile", "replicas", "up", "-d", timeout_s=UP_S)
        stack.compose.wait_healthy("api-2", timeout_s=120)
        time.sleep(5)
    stack.tell(
        f"replica stopped under load: {num_refused:.0f} refused by it while it drained, gone after {stop_s:.1f} s; "
        f"{dict(outcome.counts)}, slowest {outcome.slowest_s:.1f} s"
    )

    assert num_refused > 0  # otherwise nothing was shown
    assert exit_code == 0  # 137 would say that it did not end within the time that compose.yaml gives it
    assert outcome.counts["right"] > 50
    assert outcome.failures == {}


def test_replicas_count_the_limits_of_a_key_together(stack: Stack) -> None:
    stack.compose.env["STACK_REDIS_URL"] = "redis://redis:6379/0"
    try:
        stack.compose("--profile", "replicas", "up", "-d", timeout_s=UP_S)
    finally:
        del stack.compose.env["STACK_REDIS_URL"]
    stack.compose.wait_healthy("api", "api-2", "gateway", timeout_s=UP_S)
    limit = 10
    with stack.client(admin=True) as client:
        created = client.post("/admin/api/keys", json={"id": "limited", "limits": {"requests_per_minute": limit}})
    assert created.status_code == 201, created.text

    def statuses(url: str) -> list[int]:
        headers = {"authorization": f"Bearer {created.json()['key']}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
            return [client.post("/v1/route", json=body("What's 12 + 30?")).status_code for _ in range(limit)]

    stack.until_ready(stack.gateway_url, timeout_s=60)
    assert statuses(stack.url) == [200] * limit
    assert statuses(stack.gateway_url) == [429] * limit  # whichever replica it is
    stack.tell(f"a key with {limit} requests a minute: {limit} at one replica, then none at either")


def test_a_database_that_is_restarted_under_load_is_not_missed(stack: Stack) -> None:
    num_traces = int(stack.sql("SELECT count(*) FROM traces")[0])

    with stack.load(stack.url) as outcome:
        time.sleep(3)
        stack.compose("restart", "db", timeout_s=UP_S)
        stack.compose.wait_healthy("db", timeout_s=120)
        time.sleep(5)
    stack.tell(f"database restarted under load: {dict(outcome.counts)}, slowest {outcome.slowest_s:.1f} s")

    assert outcome.counts["right"] > 20
    assert outcome.failures == {}
    with stack.client(admin=True) as client:
        assert client.get("/ready").json()["status"] == "ready"
        label = {"id": "lasting", "backend": "openai", "model": "m", "base_url": "http://vllm-numerals:8000/v1", "enabled": False}
        assert client.post("/admin/api/experts", json=label).status_code == 201
    deadline = time.monotonic() + 30
    while (num_now := int(stack.sql("SELECT count(*) FROM traces")[0])) < num_traces + sum(outcome.counts.values()) // 2:
        assert time.monotonic() < deadline, f"{num_now - num_traces} traces of {sum(outcome.counts.values())} requests"
        time.sleep(1)


def test_prometheus_scrapes_everybody_and_evaluates_the_alerts(stack: Stack) -> None:
    stack.compose("--profile", "monitoring", "up", "-d", "--no-deps", "prometheus", timeout_s=UP_S)
    stack.compose.wait_healthy("prometheus", timeout_s=120)
    stack.compose.inside("prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    deadline = time.monotonic() + 120
    while True:
        with httpx.Client(trust_env=False) as client:
            targets = client.get(f"{stack.prometheus_url}/api/v1/targets").json()["data"]["activeTargets"]
        states = {target["scrapeUrl"]: (target["labels"]["job"], target["health"], target["lastError"]) for target in targets}
        jobs = sorted(job for job, health, _ in states.values() if health == "up")
        if jobs == ["consilium", "consilium", "vllm", "vllm", "vllm"]:
            break
        assert time.monotonic() < deadline, states
        time.sleep(1)
    written = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in written["groups"] for rule in group["rules"] if "alert" in rule}
    while True:  # each rule is evaluated for the first time within its group's interval
        with httpx.Client(trust_env=False) as client:
            groups = client.get(f"{stack.prometheus_url}/api/v1/rules").json()["data"]["groups"]
        rules = {rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
        if {name for name, (health, _) in rules.items() if health == "ok"} >= alerts:
            break
        assert time.monotonic() < deadline, rules
        time.sleep(1)
    stack.tell(f"Prometheus: {len(states)} targets, all up; {len(alerts)} alert rules, all evaluated")


def test_dump_upgrade_and_restore_lose_nothing(stack: Stack, newer_source: Path, tmp_path: Path) -> None:
    output = _finished_batch(stack)
    stack.compose("--profile", "replicas", "stop", "api-2", "gateway")
    time.sleep(3)  # traces are written behind the answers
    kept = stack.content()
    backup = tmp_path / "backup"
    stack.tell(stack.compose.script("deploy/backup.sh", str(backup), timeout_s=300).strip())

    # A newer version: its image is built, and takes over the same data.
    newer = Compose(
        _without_files(stack.compose),
        project=stack.compose.command[stack.compose.command.index("-p") + 1],
        files=[newer_source / "compose.yaml", stack.logs / "override.yaml"],
        env=stack.compose.env,
        log=stack.compose.log,
    )
    began = time.monotonic()
    newer("build", "api", "migrate", "register", timeout_s=BUILD_S)
    built = time.monotonic()
    stack.compose("up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("api", timeout_s=UP_S)
    stack.tell(f"upgrade: built in {built - began:.0f} s, up in {time.monotonic() - built:.0f} s")
    assert stack.compose.inside("api", "consilium", "version").strip().endswith("0.1.1")
    assert stack.content() == kept

    # Everything is lost, volumes included.
    stack.compose("--profile", "replicas", "--profile", "monitoring", "down", "--volumes", timeout_s=300)
    began = time.monotonic()
    stack.tell(stack.compose.script("deploy/restore.sh", str(backup), timeout_s=600).strip())
    restored = time.monotonic()
    assert stack.content() == kept
    stack.compose("up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("api", timeout_s=UP_S)
    stack.tell(
        f"restore drill: restored in {restored - began:.0f} s, healthy after {time.monotonic() - began:.0f} s; {len(kept)} tables equal"
    )
    assert stack.content() == kept
    with stack.client() as client:
        assert client.get(f"/v1/files/{output['id']}/content").content == output["content"]
    assert stack.ask("Write MCMXCIV in Arabic numerals.") == ("1994", "numerals")


def test_a_dump_of_the_release_before_is_migrated(stack: Stack, tmp_path: Path) -> None:
    """Restored into the stack of today, it has all it had, and the tables that came since."""
    stack.compose("stop", "api")
    database = "docker exec -i " + stack.compose.container("db").id
    run(["sh", "-c", f"{database} dropdb -U consilium --maintenance-db postgres --force consilium"], log=stack.compose.log)
    run(["sh", "-c", f"{database} createdb -U consilium --maintenance-db postgres consilium"], log=stack.compose.log)
    run(
        ["sh", "-c", f"{database} psql -U consilium -d consilium -q -v ON_ERROR_STOP=1"],
        stdin=PREVIOUS_RELEASE.read_text(),
        log=stack.compose.log,
    )
    columns = stack.columns()
    before = stack.content(columns)
    assert stack.sql("SELECT version_num FROM alembic_version") == ["0003"]

    stack.compose("run", "--rm", "--no-deps", "migrate", timeout_s=UP_S)

    after = stack.content(columns)
    changed = {table for table in before if before[table] != after[table]}
    came = stack.columns().keys() - columns.keys()
    stack.tell(f"from migration 0003: {len(before) - len(changed)} tables as they were, new {sorted(came)}")
    assert changed == {"alembic_version"}
    assert "batches" in came
    stack.compose("up", "-d", timeout_s=UP_S)
    stack.compose.wait_healthy("api", timeout_s=UP_S)
    with stack.client(admin=True) as client:
        assert client.get("/admin/api/experts/old-law").json()["description"] == "Kept since the release before."


def _finished_batch(stack: Stack) -> dict[str, object]:
    """The output of a batch that has ended: a row and a file that a restore must bring back."""
    with stack.client() as client:
        content = batch_file([f"What's {i} + 30?" for i in range(20)])
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
        request = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = client.post("/v1/batches", json=request).json()
        deadline = time.monotonic() + 120
        while batch["status"] != "completed":
            assert time.monotonic() < deadline, batch
            assert batch["status"] in {"validating", "in_progress", "finalizing"}, batch
            time.sleep(1)
            batch = client.get(f"/v1/batches/{batch['id']}").json()
        assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
        return {"id": batch["output_file_id"], "content": client.get(f"/v1/files/{batch['output_file_id']}/content").content}


def _without_files(compose: Compose) -> list[str]:
    """The compose command alone."""
    return compose.command[: compose.command.index("-p")]
