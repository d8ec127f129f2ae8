"""One stack for all tests of this folder, built and brought up as docs/deployment.md says; its logs are kept."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.compose.engine import BUILD_S, ROOT, Compose, EngineFailed, compose_command, has_image, run
from tests.compose.stack import Stack

STAND_INS = {"gateway": "haproxy", "redis": "redis", "prometheus": "prometheus"}
"""Services whose image is built from Debian's package where the official one cannot be pulled."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.compose)
            item.add_marker(pytest.mark.timeout(2 * BUILD_S))


@pytest.fixture(scope="session")
def logs() -> Path:
    """Where everything that the engine and the containers wrote is kept: ``CONSILIUM_TEST_LOGS``, or a new temporary folder."""
    named = os.environ.get("CONSILIUM_TEST_LOGS")
    folder = Path(named) if named else Path(tempfile.mkdtemp(prefix="consilium-compose-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\nlogs: {folder}")
    return folder


@pytest.fixture(scope="session")
def stack(logs: Path) -> Iterator[Stack]:
    """The stack, not up yet. Whatever of it runs when the tests end is removed, volumes included."""
    try:
        command = compose_command()
    except EngineFailed as failed:
        pytest.fail(str(failed), pytrace=False)
    compose = Compose(
        command,
        project=f"consilium-test-{uuid.uuid4().hex[:8]}",
        files=[ROOT / "compose.yaml", _override(logs)],
        env={
            "STACK_VERSION": "compose-test",
            "STACK_POSTGRES_PASSWORD": secrets.token_hex(24),
            "STACK_API_KEYS": secrets.token_hex(24),
            "STACK_ADMIN_KEY": secrets.token_hex(24),
            "STACK_GRAFANA_PASSWORD": secrets.token_hex(24),
            **{f"STACK_{name}PORT": str(_free_port()) for name in ("", "GATEWAY_", "PROMETHEUS_", "GRAFANA_")},
        },
        log=logs / "commands.log",
    )
    stack = Stack(compose, logs)
    try:
        yield stack
    finally:
        stack.keep_logs()
        with suppress(EngineFailed):
            compose("--profile", "replicas", "--profile", "monitoring", "down", "--volumes", "--remove-orphans", timeout_s=300)


def _override(logs: Path) -> Path:
    """What the test lays over compose.yaml: builds see the host's network, and images that cannot be had are stood in for."""
    services: dict[str, object] = {
        name: {"build": {"network": "host"}}
        for name, service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].items()
        if "build" in service
    }
    published = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, folder in STAND_INS.items():
        if not has_image(published[name]["image"]):
            services[name] = {
                "image": f"consilium-stand-in-{folder}:compose-test",
                "build": {"context": str(ROOT / "tests/compose/images" / folder), "network": "host"},
            }
    path = logs / "override.yaml"
    path.write_text(yaml.safe_dump({"services": services}), encoding="utf-8")
    return path


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def newer_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's tracked files, with a higher version: what an upgrade brings."""
    folder = tmp_path_factory.mktemp("newer")
    tracked = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.1.1"'), encoding="utf-8")
    return folder
