"""An expert's folder on disk: which one it is, and what is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import ExpertUnreachable, InvalidRequest
from domain.experts import Backend, ExpertCard
from domain.nearest import did_you_mean

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class ExpertFolder:
    """Where an expert's weights are. ``adapter`` is a PEFT folder on top of ``base``, or None."""

    base: Path
    adapter: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder to load the tokenizer from: the adapter's own, when it brings one."""
        return self.adapter if self.adapter is not None and (self.adapter / "tokenizer.json").is_file() else self.base


def find_folder(card: ExpertCard, embedded_dir: Path) -> ExpertFolder:
    """The folder of *card*: a name below *embedded_dir*, or an absolute path. Raises ``ExpertUnreachable``."""
    try:
        return _found(card, embedded_dir)
    # A name that is too long, a folder that may not be read, a loop of links, a file that is not JSON.
    except (OSError, ValueError, RuntimeError) as error:
        raise ExpertUnreachable(f"the folder of expert {card.id!r} cannot be read: {error}", retryable=False) from error


def require_folder(card: ExpertCard, embedded_dir: Path) -> None:
    """Raise ``InvalidRequest`` that names the field and the nearest folder when *card* could answer nothing as it is.

    Only enabled embedded experts are looked at, and a name only where *embedded_dir* is on this machine.
    """
    named_elsewhere = not Path(card.model).is_absolute() and not embedded_dir.is_dir()
    if card.backend is not Backend.EMBEDDED or not card.enabled or named_elsewhere:
        return
    try:
        find_folder(card, embedded_dir)
    except ExpertUnreachable as error:
        field = "adapter_of" if card.adapter_of and (embedded_dir / card.model).is_dir() else "model"
        raise InvalidRequest(f"{field}: {error.message}", param=field) from error


def _found(card: ExpertCard, embedded_dir: Path) -> ExpertFolder:
    folder = _existing(card.model, embedded_dir, card.id)
    if not (folder / ADAPTER_CONFIG).is_file():
        return ExpertFolder(_with_config(folder, card.id))
    named = card.adapter_of or read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        msg = f"{folder.name} is an adapter, but neither adapter_of of expert {card.id!r} nor its {ADAPTER_CONFIG} names the base model"
        raise ExpertUnreachable(msg, retryable=False)
    # PEFT writes a name or a path; beside the adapter itself is where a sibling lies.
    parent = folder.parent if (folder.parent / named).is_dir() else embedded_dir
    return ExpertFolder(_with_config(_existing(named, parent, card.id), card.id), folder)


def _existing(name: str, parent: Path, expert_id: str) -> Path:
    folder = Path(name) if Path(name).is_absolute() else parent / name
    if folder.is_dir():
        return folder.resolve()
    known = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    msg = f"the folder {name!r} of expert {expert_id!r} does not exist; {did_you_mean(name, known)}"
    raise ExpertUnreachable(msg, retryable=False)


def _with_config(folder: Path, expert_id: str) -> Path:
    if not (folder / "config.json").is_file():
        msg = f"the folder {folder.name!r} of expert {expert_id!r} holds no model (no config.json)"
        raise ExpertUnreachable(msg, retryable=False)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one when the file does not exist."""
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}
