"""Checks of single values that people write, each with a sentence on what is wanted. Pure.

They raise ``ValueError``, which pydantic puts under the field's name. No message repeats a value that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

from domain.nearest import did_you_mean
from domain.variables import is_of_the_service

ListT = TypeVar("ListT", bound=list[Any])

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_ENVIRONMENT_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
RESERVED_EXPERT_IDS = frozenset({"auto"})
"""Names of virtual models: an expert of that id could never be asked."""
_REQUEST_FIELDS = ("model", "messages", "stream")


def one_of(allowed: type[StrEnum] | Iterable[str]) -> Callable[[object], object]:
    """A check that a text is one of *allowed*, which suggests the nearest; of an enum it returns the member."""
    by_value = {str(member): member for member in allowed}

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"must be one of {', '.join(by_value)}")  # pydantic reports ValueError only
        if value not in by_value:
            raise ValueError(f"{value[:64]!r} is not known; {did_you_mean(value[:64], tuple(by_value))}")
        return by_value[value]

    return check


def identifier(value: str) -> str:
    """Lower-case letters, digits, dots, dashes and underscores."""
    if not _ID.fullmatch(value):
        raise ValueError(
            "must be lower-case letters, digits, dots, dashes and underscores, and begin with a letter or digit" + _repaired(value)
        )
    return value


def expert_id(value: str) -> str:
    """An identifier that is no name of a virtual model."""
    if value in RESERVED_EXPERT_IDS or value.startswith("consilium/"):
        raise ValueError(f"{value[:64]!r} is reserved for strategies: choose another id")
    return identifier(value)


def environment_reference(value: str) -> str:
    """``env:NAME``, not of a variable of the service: its secrets would go to whatever server the card names."""
    if not _ENVIRONMENT_REFERENCE.fullmatch(value):
        raise ValueError("must name an environment variable, as in env:OPENAI_API_KEY; keys themselves are never stored")
    if is_of_the_service(value.removeprefix("env:")):
        raise ValueError("must not name a setting of the service (CONSILIUM_…, STACK_…): put the expert's key into a variable of its own")
    return value


def http_url(value: str) -> str:
    """An http or https URL with a host and without a password."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in {"http", "https"} or not host or any(c.isspace() for c in value):
        raise ValueError("must be an http or https URL, e.g. http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password: put the key into api_key, as in env:NAME")
    return value


def gpu(value: str) -> str:
    """A GPU's index or UUID."""
    if not _GPU.fullmatch(value):
        raise ValueError("must be a GPU's index or UUID, as nvidia-smi -L shows them, in quotes")
    return value


def model_place(value: str) -> str:
    """A folder's absolute path, or a model's id on the hub."""
    if not (value.startswith("/") or _HUB_ID.fullmatch(value)):
        raise ValueError("must be a folder's absolute path or an id on the hub, such as Qwen/Qwen2.5-7B-Instruct, for backend 'vllm'")
    return value


def storable(value: str) -> str:
    """A text that both databases and YAML can hold."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must not hold a NUL character or half a surrogate pair")
    return value


def distinct(values: ListT) -> ListT:
    """No value twice."""
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{str(value)!r} stands twice")
    return values


def no_request_fields(value: dict[str, Any]) -> dict[str, Any]:
    """None of the fields that make a request what it is."""
    for field in _REQUEST_FIELDS:
        if field in value:
            raise ValueError(f"must not set {field!r}, which belongs to each request")
    return value


def _repaired(value: str) -> str:
    """A hint at the nearest valid identifier, when there is one."""
    repaired = re.sub(r"[^a-z0-9._-]+", "-", value.lower()).strip("-._")
    return f"; did you mean {repaired[:64]!r}?" if repaired and _ID.fullmatch(repaired) else ""
