"""The container engine and its compose command, as a person at a terminal uses them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK_S = 120.0
"""Longest time for a command that neither builds nor waits for health."""
BUILD_S = 3600.0
"""Longest build: torch and vLLM are some gigabytes to fetch."""

NO_ENGINE = (
    "make compose-test needs a container engine that runs: Docker with `docker compose` (or docker-compose 1.29). "
    "Install it, start it, see that `docker info` answers, and try again."
)


class EngineFailed(AssertionError):
    """A command of the engine failed; the text has its last lines."""


def run(
    command: Sequence[str],
    *,
    log: Path | None = None,
    timeout_s: float = QUICK_S,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path = ROOT,
) -> str:
    """Standard output of *command*; everything that it wrote is appended to *log*. Raises ``EngineFailed``."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as late:
        raise EngineFailed(f"{' '.join(command)}: not done after {timeout_s:g} s") from late
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}[{done.returncode}, {time.monotonic() - began:.1f} s]\n")
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise EngineFailed(f"{' '.join(command)}: exit code {done.returncode}\n{tail}")
    return done.stdout


def compose_command() -> list[str]:
    """``docker compose`` where that is installed, else ``docker-compose``. Raises ``EngineFailed`` where no engine answers."""
    if shutil.which("docker") is None:
        raise EngineFailed(f"there is no docker command here. {NO_ENGINE}")
    try:
        run(["docker", "info"])
    except EngineFailed as failed:
        raise EngineFailed(f"{failed}\n{NO_ENGINE}") from failed
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is not None:
            try:
                run([*command, "version"])
            except EngineFailed:
                continue
            return command
    raise EngineFailed(f"the engine answers, but there is no compose command. {NO_ENGINE}")


def has_buildkit() -> bool:
    """Whether images can be built with BuildKit; without its plugin the client refuses to build at all unless told otherwise."""
    try:
        run(["docker", "buildx", "version"])
    except EngineFailed:
        return False
    return True


def has_image(name: str) -> bool:
    """Whether *name* is here or can be fetched."""
    for command in (["docker", "image", "inspect", name], ["docker", "pull", "--quiet", name]):
        try:
            run(command, timeout_s=600)
        except EngineFailed:
            continue
        return True
    return False


@dataclass(frozen=True)
class Container:
    """One container as it stands now (``docker inspect``)."""

    id: str
    facts: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.facts["State"]
        return state

    @property
    def health(self) -> str:
        """``healthy``, ``starting``, ``unhealthy``; without a healthcheck what it does (``running``, ``exited``)."""
        return str(self.state.get("Health", {}).get("Status") or self.state["Status"])

    @property
    def started_at(self) -> str:
        return str(self.state["StartedAt"])


class Compose:
    """One project on the engine: the repository's compose.yaml, and what the test lays over it."""

    def __init__(self, command: Sequence[str], *, project: str, files: Sequence[Path], env: Mapping[str, str], log: Path) -> None:
        named = [option for file in files for option in ("-f", str(file))]
        self.command = [*command, "-p", project, *named]
        self.env = {**os.environ, **env}
        if not has_buildkit():
            self.env |= {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        self.log = log

    def __call__(self, *arguments: str, timeout_s: float = QUICK_S, stdin: str | None = None) -> str:
        return run([*self.command, *arguments], log=self.log, timeout_s=timeout_s, env=self.env, stdin=stdin)

    def script(self, *command: str, timeout_s: float = QUICK_S) -> str:
        """Run one of deploy's scripts on this project."""
        return run(command, log=self.log, timeout_s=timeout_s, env={**self.env, "COMPOSE": " ".join(self.command)})

    def container(self, service: str) -> Container:
        """The service's container. Raises ``EngineFailed`` when there is none."""
        identity = self("--profile", "replicas", "--profile", "monitoring", "ps", "-a", "-q", service).split()
        if not identity:
            raise EngineFailed(f"the service {service} has no container")
        return Container(identity[0], json.loads(run(["docker", "inspect", identity[0]]))[0])

    def inside(self, service: str, *command: str) -> str:
        """Standard output of a command in the service's running container."""
        return run(["docker", "exec", self.container(service).id, *command], log=self.log)

    def wait_healthy(self, *services: str, timeout_s: float) -> float:
        """Seconds until all *services* are healthy. Raises ``EngineFailed`` with the log of one that is not."""
        began = time.monotonic()
        while True:
            states = {service: self.container(service).health for service in services}
            if set(states.values()) == {"healthy"}:
                return time.monotonic() - began
            if time.monotonic() - began > timeout_s:
                late = next(service for service, state in states.items() if state != "healthy")
                tail = run(["docker", "logs", "--tail", "40", self.container(late).id], log=self.log)
                raise EngineFailed(f"after {timeout_s:g} s: {states}\n{tail}")
            time.sleep(1.0)
