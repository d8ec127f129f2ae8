"""What is declared is what is imported: no library comes by luck, and none is installed for nothing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import files, packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVED = ("domain", "orchestrator", "routers", "experts_registry", "workers", "evaluation", "api", "zoo")
BY_NAME = {"aiosqlite", "asyncpg"}
"""Drivers that SQLAlchemy imports by the URL's name."""
PART_OF = {"starlette": "fastapi"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normal(re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]) for requirement in project["dependencies"]}


def imported() -> set[str]:
    """Distributions that modules of the service import, wherever in the module."""
    names: set[str] = set()
    for package in SERVED:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module)
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names | set(SERVED)}
    return {PART_OF.get(found, found) for name in foreign for found in [normal(distribution_of(name))]}


@cache
def _by_module() -> Mapping[str, list[str]]:
    return packages_distributions()


def distribution_of(module: str) -> str:
    """Who brings *module*; of several that share its first name (OpenTelemetry's), the one that has its file."""
    candidates = _by_module()[module.partition(".")[0]]
    if len(set(candidates)) == 1:
        return candidates[0]
    path = module.replace(".", "/")
    found = [name for name in candidates if {f"{path}.py", f"{path}/__init__.py"} & {str(file) for file in files(name) or ()}]
    assert found, f"{module} is in none of {candidates}"
    return found[0]


def test_what_the_service_imports_is_declared_and_the_other_way_round() -> None:
    assert imported() == declared() - BY_NAME


def test_the_lock_holds_what_is_declared() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {normal(line.split("==")[0].partition("[")[0]) for line in lines if "==" in line}  # some with their extras

    assert declared() <= locked
