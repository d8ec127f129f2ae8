"""``--set FIELD=VALUE``: every field of a card can be given on the command line."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from api.cli.assignments import with_fields
from api.cli.failures import CommandFailed
from api.cli.main import app
from experts_registry.models import ExpertModel

BY_ANOTHER_NAME = {"id": "expert", "exemplars": "exemplar", "enabled": "disabled"}
OBJECTS = {"serving", "price", "sampling", "extra_body"}


def test_values_are_json_or_texts() -> None:
    given = ["timeout_s=5", "enabled=false", "description=a = b", 'exemplars=["one", "two"]', "model=org/name"]

    assert with_fields({"id": "e1"}, given) == {
        "id": "e1", "timeout_s": 5, "enabled": False, "description": "a = b", "exemplars": ["one", "two"], "model": "org/name",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[" * 100_000])
def test_what_json_cannot_say_is_a_text_that_the_service_refuses(text: str) -> None:
    assert with_fields({}, [f"timeout_s={text}"]) == {"timeout_s": text}


def test_a_dot_leads_into_an_object_and_leaves_what_is_in_it() -> None:
    given: dict[str, Any] = {"price": {"prompt": 1.0}}
    filled = with_fields(given, ["price.completion=2", "serving.pinned=true", 'serving.gpus=["0"]', "extra_body.a.b=x"])

    assert filled["price"] == {"prompt": 1.0, "completion": 2}
    assert filled["serving"] == {"pinned": True, "gpus": ["0"]}
    assert filled["extra_body"] == {"a": {"b": "x"}}
    assert given == {"price": {"prompt": 1.0}}, "what was given is not changed"


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("pinned", "takes FIELD=VALUE"),
        ("=1", "takes FIELD=VALUE"),
        ("serving.=1", "takes FIELD=VALUE"),
        ("timeout_s=7", "timeout_s is given twice"),
        ("timeout_s.more=7", "timeout_s is given as a value already"),
    ],
)
def test_what_cannot_be_meant_is_an_error_before_anything_is_sent(assignment: str, told: str) -> None:
    with pytest.raises(CommandFailed, match=told):
        with_fields({"timeout_s": 5}, [assignment])


def test_the_error_shows_what_the_command_takes() -> None:
    with pytest.raises(CommandFailed, match=r"set takes FIELD=VALUE, such as set pick\.k=2, and not 'pick'"):
        with_fields({}, ["pick"], like="set pick.k=2")


def test_every_field_of_a_card_has_an_option() -> None:
    """A field that is new on cards is missing here until the command takes it. Objects are for ``--set``."""
    root: Any = typer.main.get_command(app)
    taken = {parameter.name for parameter in root.commands["experts"].commands["add"].params}
    missing = {BY_ANOTHER_NAME.get(name, name) for name in ExpertModel.model_fields.keys() - OBJECTS - {"version"}} - taken

    assert missing == set()
    assert "assignments" in taken
