"""What a managed expert's card and files say about where it comes from. Reads small files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from domain.errors import ExpertUnavailable, ExpertUnreachable
from domain.experts import Backend, ExpertCard, ServingOptions
from workers.embedded.folder import ADAPTER_CONFIG, find_folder
from workers.managed.placement import Source

EMBEDDED_SERVING = ServingOptions(dtype="bfloat16", cpu_threads=1)
"""How experts of the backend ``embedded`` are served on vLLM: what their weights are stored in, and with one thread, for models this
small only wait for a second one (on two cores 300 answers a second instead of 200)."""


def source_of(card: ExpertCard, embedded_dir: Path) -> Source:
    """Raises ``ExpertUnavailable`` that says what is wrong with its files."""
    try:
        found = _embedded(card, embedded_dir) if card.backend is Backend.EMBEDDED else _declared(card)
        return replace(found, rank=_rank(found)) if found.adapter is not None else found
    except ExpertUnreachable as error:
        raise ExpertUnavailable(error.message) from error


def _embedded(card: ExpertCard, embedded_dir: Path) -> Source:
    """The card's memory is what it needs in the service's process, which says nothing about a server."""
    folder = find_folder(card, embedded_dir)
    adapter = None if folder.adapter is None else str(folder.adapter)
    return Source(card.id, str(folder.base), card.context_length, adapter, serving=EMBEDDED_SERVING)


def _declared(card: ExpertCard) -> Source:
    own = Source(card.id, card.model, card.context_length, memory_mb=card.memory_mb, serving=card.serving)
    if card.adapter_of is None:
        if Path(card.model).is_absolute() and (Path(card.model) / ADAPTER_CONFIG).is_file():
            raise ExpertUnavailable(f"{card.model} is a LoRA adapter: name its base in adapter_of")
        return own
    if not Path(card.model).is_absolute():
        raise ExpertUnavailable(f"its adapter {card.model!r} must be a folder's absolute path; fetch it first")
    return replace(own, base=card.adapter_of, adapter=card.model)


def _rank(source: Source) -> int:
    if source.serving.max_lora_rank is not None:
        return source.serving.max_lora_rank
    file = Path(str(source.adapter)) / ADAPTER_CONFIG
    try:
        rank = json.loads(file.read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExpertUnavailable(f"its adapter cannot be read: {file} is no LoRA adapter's configuration ({error})") from error
    if not isinstance(rank, int) or rank < 1:
        raise ExpertUnavailable(f"its adapter's rank in {file} is {rank!r}, it must be a whole number from 1 on")
    return rank
