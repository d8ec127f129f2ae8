"""What is known of an embedded expert's folder when its card is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidRequest
from domain.experts import Backend, ExpertCard
from workers.embedded.folder import require_folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A model, an adapter on it, and an empty folder."""
    for name, file in {"numerals": "config.json", "polite": "adapter_config.json", "empty": "other"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    return tmp_path


def card(**fields: Any) -> ExpertCard:
    return ExpertCard(**{"id": "foo", "backend": Backend.EMBEDDED, "model": "numerals", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "polite", "adapter_of": "numerals"},
        {"model": "numerls", "enabled": False},
        {"model": "numerls", "backend": Backend.OPENAI},
    ],
)
def test_a_card_that_can_answer_or_is_not_asked_to_is_fine(folders: Path, fields: dict[str, Any]) -> None:
    require_folder(card(**fields), folders)


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"model": "numerls"}, "model", "model: the folder 'numerls' of expert 'foo' does not exist; did you mean 'numerals'?"),
        ({"model": "/nowhere/numerals"}, "model", "does not exist"),
        ({"model": "empty"}, "model", "holds no model"),
        ({"model": "polite", "adapter_of": "numerl"}, "adapter_of", "did you mean 'numerals'?"),
        ({"model": "polite"}, "model", "names the base model"),
    ],
)
def test_a_card_that_could_not_answer_is_refused_with_its_field(folders: Path, fields: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        require_folder(card(**fields), folders)

    assert caught.value.param == field
    assert told in caught.value.message


def test_where_the_folders_are_on_another_machine_nothing_is_said(folders: Path) -> None:
    require_folder(card(model="numerls"), folders / "elsewhere")
