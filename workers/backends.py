"""The backends there are. A further one is a member of ``domain.experts.Backend`` and a line in ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from domain.experts import Backend
from workers.addresses import AddressPolicy
from workers.limits import EmbeddedLimits, HttpLimits
from workers.worker import Worker

if TYPE_CHECKING:
    from workers.managed.fleet import Fleet


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What adapters are built from."""

    http: HttpLimits
    embedded: EmbeddedLimits
    embedded_dir: Path
    """Where embedded experts have their folders."""
    environ: Mapping[str, str]
    """Where ``env:NAME`` references are looked up."""
    fleet: Fleet | None = None
    """The managed servers, when this process has any."""
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    """Where experts may be called; managed servers are the service's own and may be anywhere."""


# Each import happens in its function: torch or litellm are paid for by those who use them. They may take seconds, so the
# pool calls these in a thread.


def _embedded(settings: BackendSettings) -> Worker:
    from workers.embedded.worker import EmbeddedWorker

    return EmbeddedWorker(settings.embedded_dir, settings.embedded)


def _openai(settings: BackendSettings) -> Worker:
    from workers.openai_worker import OpenAIWorker

    return OpenAIWorker(settings.http, settings.environ, settings.addresses)


def _litellm(settings: BackendSettings) -> Worker:
    from workers.litellm_worker import LiteLLMWorker

    return LiteLLMWorker(settings.http, settings.environ, settings.addresses)


def _vllm(settings: BackendSettings) -> Worker:
    from workers.managed.worker import ManagedWorker
    from workers.openai_worker import OpenAIWorker

    return ManagedWorker(settings.fleet, OpenAIWorker(settings.http, settings.environ))


BACKENDS: Mapping[Backend, Callable[[BackendSettings], Worker]] = {
    Backend.EMBEDDED: _embedded,
    Backend.OPENAI: _openai,
    Backend.LITELLM: _litellm,
    Backend.VLLM: _vllm,
}
