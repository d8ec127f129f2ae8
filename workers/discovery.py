"""What an OpenAI-compatible server serves: its ``/v1/models``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from domain.errors import ExpertAuthFailed, ExpertError, ExpertOverloaded, ExpertProtocolError

_VERSION = re.compile(r"/v\d+\w*/?$")


@dataclass(frozen=True, slots=True)
class DiscoveredModel:
    """One model that a server offers."""

    id: str
    max_model_len: int | None = None
    """Tokens of context; vLLM tells it, OpenAI does not."""
    parent: str | None = None
    """For a LoRA adapter: the id of the model that it sits on (vLLM)."""
    owned_by: str | None = None


def models_url(base_url: str) -> str:
    return f"{base_url.rstrip('/')}/models"


def without_version(base_url: str, error: ExpertError) -> ExpertError:
    """*error*, met while the models were asked for; when *base_url* lacks its ``/v1``, with that as the likely cause."""
    # A server answers another path with an error of its own, a redirect, or a page for people. Whoever is not there is not there.
    answered = error.status is not None or isinstance(error, ExpertProtocolError)
    if not answered or isinstance(error, ExpertAuthFailed | ExpertOverloaded) or _VERSION.search(base_url):
        return error
    said = f"{models_url(base_url)} is no list of models: append /v1 to the address ({base_url.rstrip('/')}/v1). {error.message}"
    return type(error)(said, status=error.status, retryable=False)


def discovered_models(payload: object, base_url: str) -> list[DiscoveredModel]:
    """The models listed in *payload*, whole models before adapters. Raises ``ExpertProtocolError`` when it is no such list."""
    listed = payload.get("data") if isinstance(payload, Mapping) else None
    if not isinstance(listed, list):
        msg = f"{models_url(base_url)} answered with something that is no list of models"
        raise ExpertProtocolError(msg)
    models = [_model(entry) for entry in listed if isinstance(entry, Mapping) and isinstance(entry.get("id"), str)]
    # An adapter inherits the context of its base where the server leaves it out.
    length = {model.id: model.max_model_len for model in models}
    complete = [DiscoveredModel(m.id, m.max_model_len or length.get(m.parent or ""), m.parent, m.owned_by) for m in models]
    return sorted(complete, key=lambda model: model.parent is not None)


def _model(entry: Mapping[str, object]) -> DiscoveredModel:
    length, parent, owner = entry.get("max_model_len"), entry.get("parent"), entry.get("owned_by")
    return DiscoveredModel(
        id=str(entry["id"]),
        max_model_len=length if isinstance(length, int) else None,
        parent=parent if isinstance(parent, str) else None,
        owned_by=owner if isinstance(owner, str) else None,
    )
