"""What compose.yaml, the Dockerfiles and deploy/ promise, without an engine. ``make compose-test`` runs the stack for real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.settings import Settings
from domain.experts import Backend
from experts_registry.manifest import load_manifest
from zoo import release

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KUBERNETES = sorted(path for path in (DEPLOY / "kubernetes/base").glob("*.yaml") if path.name not in {"kustomization.yaml", "experts.yaml"})
KUBERNETES_VERSIONS = ("1.28", "1.32", "1.35")

ONE_SHOT = {"migrate", "register", "register-gpu"}
BECOMES_A_USER_ITSELF = {"db"}
"""The image's entry point needs root to hand its volume over, and then runs the server as its own user."""
WITH_A_USER_IN_OUR_DOCKERFILE = {"consilium", "consilium-vllm-cpu"}


def by_default(text: str) -> str:
    """*text* with the defaults of its variables."""
    return re.sub(r"\$\{[A-Z_]+:?-([^}]*)\}", r"\1", text)


@pytest.fixture(params=SERVICES)
def named(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each service of compose.yaml with its name."""
    return request.param, SERVICES[request.param]


def test_images_are_pinned(named: tuple[str, dict[str, Any]]) -> None:
    name, _, tag = by_default(named[1]["image"]).rpartition(":")

    assert name
    assert re.match(r"v?\d", tag), f"{named[0]}: {tag!r} is no version"


def test_every_service_has_a_healthcheck(named: tuple[str, dict[str, Any]]) -> None:
    check = named[1]["healthcheck"]
    if named[0] in ONE_SHOT:
        assert check == {"disable": True}
        assert named[1]["restart"] == "no"
    else:
        assert check["test"][0] == "CMD"
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
        assert named[1]["restart"] == "unless-stopped"


def test_no_service_runs_as_root(named: tuple[str, dict[str, Any]]) -> None:
    name, service = named
    image = service["image"].partition(":")[0]
    if name not in BECOMES_A_USER_ITSELF and image not in WITH_A_USER_IN_OUR_DOCKERFILE:
        assert int(service["user"].partition(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


def test_resources_are_bounded(named: tuple[str, dict[str, Any]]) -> None:
    service = named[1]

    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service.get("cpus") or "devices" in service["deploy"]["resources"]["reservations"]
    assert service["logging"]["options"]["max-size"]


def test_dependencies_have_conditions(named: tuple[str, dict[str, Any]]) -> None:
    for other, how in named[1].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy")


def test_ports_are_published_on_loopback_unless_asked_otherwise(named: tuple[str, dict[str, Any]]) -> None:
    for port in named[1].get("ports", ()):
        assert by_default(port).startswith("127.0.0.1:")


def test_volumes_are_named_and_mounted_files_exist_and_are_read_only(named: tuple[str, dict[str, Any]]) -> None:
    for volume in named[1].get("volumes", ()):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_secrets_are_required_and_have_no_default() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    secrets = {"STACK_POSTGRES_PASSWORD", "STACK_API_KEYS", "STACK_ADMIN_KEY", "STACK_GRAFANA_PASSWORD"}
    for name in secrets:
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
        assert uses
        assert all(re.match(r":\?is missing - .*make env", use) for use in uses), name
    assert {f"STACK_{name}" for name in re.findall(r"POSTGRES_PASSWORD|API_KEYS|ADMIN_KEY|GRAFANA_PASSWORD", _target("env"))} == secrets


def test_make_env_adds_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=mine\nSTACK_ADMIN_KEY=chosen\n", encoding="utf-8")

    for _ in range(2):
        subprocess.run(["make", "-s", "-f", ROOT / "Makefile", "env"], cwd=tmp_path, check=True, capture_output=True, timeout=30)

    written = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text(encoding="utf-8").splitlines())
    assert written["OPENAI_API_KEY"] == "mine"
    assert written["STACK_ADMIN_KEY"] == "chosen"
    assert len(written) == 5
    made = [value for name, value in written.items() if name.startswith("STACK_") and name != "STACK_ADMIN_KEY"]
    assert len(set(made)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made)


def test_the_services_settings_exist() -> None:
    known = {f"CONSILIUM_{name.upper()}" for name in Settings.model_fields}
    for service in SERVICES.values():
        given = {name for name in service.get("environment", {}) if name.startswith("CONSILIUM_")}
        assert given <= known


def test_the_stack_has_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert by_default(SERVICES["api"]["image"]) == f"consilium:{version}"
    assert yaml.safe_load((DEPLOY / "kubernetes/base/kustomization.yaml").read_text())["images"][0]["newTag"] == version


def test_vllm_has_one_version() -> None:
    pinned = re.search(r"vllm-cpu==([\d.]+)", (DEPLOY / "requirements-vllm-cpu.txt").read_text())
    assert pinned is not None
    stack = yaml.safe_load((DEPLOY / "kubernetes/vllm-stack.yaml").read_text())

    assert SERVICES["vllm-gpu"]["image"] == f"vllm/vllm-openai:v{pinned[1]}"
    assert {model["tag"] for model in stack["servingEngineSpec"]["modelSpec"]} == {f"v{pinned[1]}"}


def test_cards_of_workers_point_at_services_that_serve_them() -> None:
    for file in ("experts.yaml", "experts-gpu.yaml"):
        for expert in load_manifest((DEPLOY / "compose" / file).read_text()).experts:
            assert expert.backend is Backend.OPENAI
            host = re.fullmatch(r"http://([a-z-]+):8000/v1", expert.base_url or "")
            assert host is not None
            command = " ".join(SERVICES[host[1]]["command"])
            assert f"--served-model-name={expert.model} " in command or f" {expert.model}=/models/{expert.model}" in command


def test_cards_of_workers_say_of_the_zoo_what_the_zoo_says() -> None:
    zoo = {expert.id: expert for expert in load_manifest(release.manifest_text()).experts}
    for expert in load_manifest((DEPLOY / "compose/experts.yaml").read_text()).experts:
        embedded = zoo[expert.id]
        for name in ("description", "skills", "context_length", "chars_per_token", "sampling", "parameters_b", "max_in_flight"):
            assert getattr(expert, name) == getattr(embedded, name), (expert.id, name)


def test_cards_can_be_entered_where_the_zoos_skills_are_not_known() -> None:
    zoo = load_manifest(release.manifest_text()).skills
    for file in (DEPLOY / "compose/experts.yaml", DEPLOY / "compose/experts-gpu.yaml", DEPLOY / "kubernetes/base/experts.yaml"):
        manifest = load_manifest(file.read_text())
        assert {skill for expert in manifest.experts for skill in expert.skills} == manifest.skills.keys()
        assert all(zoo.get(skill, text) == text for skill, text in manifest.skills.items())


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "deploy/vllm-cpu/Dockerfile"])
def test_dockerfiles_have_stages_and_a_user(dockerfile: str) -> None:
    lines = (ROOT / dockerfile).read_text(encoding="utf-8").splitlines()

    stages = [line.split() for line in lines if line.startswith("FROM")]
    assert len(stages) >= 2
    assert {stage[1] for stage in stages} <= {"${BASE_IMAGE}", *(stage[3] for stage in stages if len(stage) > 2)}
    assert "ARG BASE_IMAGE=python:3.11-slim-bookworm" in lines
    last = max(i for i, line in enumerate(lines) if line.startswith("FROM"))
    user = [line.split()[1] for line in lines[last:] if line.startswith("USER")]
    assert user
    assert user[-1] != "root"


def test_the_lock_serves_as_constraints_once_extras_are_gone() -> None:
    command = re.search(r"sed -E '([^']+)' requirements.lock", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert command is not None

    done = subprocess.run(["sed", "-E", command[1], ROOT / "requirements.lock"], capture_output=True, text=True, check=True, timeout=10)

    pins = [line for line in done.stdout.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(pins) > 50
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[^\[\]]+", pin) for pin in pins)


def test_nothing_secret_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert "*" in lines  # everything stays out, but for what is named
    assert not {"!.env", "!data", "!.git"} & set(lines)
    assert "**/.env" in lines


def test_prometheus_scrapes_the_stacks_services() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    names = {name for job in config["scrape_configs"] for found in job["dns_sd_configs"] for name in found["names"]}

    assert names == {name for name in SERVICES if name.startswith(("api", "vllm-"))}
    mounted = " ".join(SERVICES["prometheus"]["volumes"])
    assert all(f"./deploy/prometheus/{name}:/etc/prometheus/{name}:ro" in mounted for name in config["rule_files"])


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_kubernetes_takes_the_manifests(path: Path, version: str) -> None:
    for resource in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(resource, version, strict=True)


def test_kustomize_renders_valid_manifests() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/base/kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [path.name for path in KUBERNETES]
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl; the files by themselves are checked above")

    done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes/base"], capture_output=True, text=True, check=True, timeout=60)
    resources = list(yaml.safe_load_all(done.stdout))
    assert len(resources) == len(KUBERNETES) + 1
    for resource in resources:
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)


def test_pods_have_no_rights() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/base/deployment.yaml").read_text())["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is False  # or the cluster would set CONSILIUM_PORT
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} == container["resources"].keys()


def test_cards_for_kubernetes_name_models_that_the_stack_serves() -> None:
    stack = yaml.safe_load((DEPLOY / "kubernetes/vllm-stack.yaml").read_text())
    served = {model["modelURL"]: model["vllmConfig"]["maxModelLen"] for model in stack["servingEngineSpec"]["modelSpec"]}
    manifest = load_manifest((DEPLOY / "kubernetes/base/experts.yaml").read_text())

    assert {expert.model: expert.context_length for expert in manifest.experts} == served


def _target(name: str) -> str:
    """A recipe of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found is not None
    return found[1]


FAKE_COMPOSE = """#!/usr/bin/env bash
# pg_dump and pg_restore succeed; tar is the real one, on DATA instead of the volume, and ends with TAR_ENDS when that is set.
if [[ $1 == exec ]]; then echo dump; exit 0; fi
while [[ $1 != migrate ]]; do shift; done
shift
tar "${@/#\\/data/$DATA}" || exit $?
exit ${TAR_ENDS:-0}
"""


@pytest.mark.parametrize(("tar_ends", "is_kept"), [("0", True), ("1", True), ("2", False)])
def test_a_backup_is_made_while_files_are_uploaded(tmp_path: Path, tar_ends: str, is_kept: bool) -> None:
    """tar ends with 1 when a file changed as it was read: no reason to have no backup. What is wrong ends with 2."""
    compose, data, folder = tmp_path / "compose", tmp_path / "data", tmp_path / "backup"
    compose.write_text(FAKE_COMPOSE)
    compose.chmod(0o755)
    for name in ("files/whole", "files/half.part", "cache/model", "admin.key"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)

    done = subprocess.run(
        [DEPLOY / "backup.sh", folder],
        env={**os.environ, "COMPOSE": str(compose), "DATA": str(data), "TAR_ENDS": tar_ends},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode == 0) is is_kept, done.stderr
    assert (folder / "database.dump").exists() is is_kept
    if is_kept:
        with tarfile.open(folder / "files.tar") as archive:
            assert {name for name in archive.getnames() if (data / name).is_file()} == {"./files/whole", "./admin.key"}
