"""From a browser's form to a body of the API, and from its errors back to the fields."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from api.schemas.admin import ProfileRunBody
from api.ui.forms import Form, parse_form, problems_of
from api.ui.model_forms import Kind, body_of, fields_of, given, shown
from domain.errors import InvalidRequest
from domain.experts import Backend, Capability, ExpertCard, Price, ServingOptions
from experts_registry.key_models import KeyModel
from experts_registry.manifest import parse
from experts_registry.models import ExpertModel, StrategyModel

EXPERT = fields_of(ExpertModel, leave_out={"version"})


def form_of(values: dict[str, Any]) -> Form:
    """What a browser sends of a form that stands as *values*."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, bool):
            pairs += [(name, "on")] if value else []
        elif isinstance(value, list):
            pairs += [(name, item) for item in value]
        else:
            pairs.append((name, value))
    return parse_form(urlencode(pairs).encode())


@pytest.mark.parametrize(
    "card",
    [
        ExpertCard("plain", Backend.OPENAI, "m", base_url="http://127.0.0.1:8000/v1"),
        ExpertCard(
            "full",
            Backend.VLLM,
            "/models/full",
            description="two\nlines",
            capabilities=frozenset({Capability.TOOLS, Capability.VISION}),
            skills=("algebra", "roman numerals"),
            exemplars=("What is 1, 2, or 3?",),
            labels=frozenset({"internal"}),
            parameters_b=7.5,
            memory_mb=16_000.0,
            serving=ServingOptions(gpus=("0", "1"), tensor_parallel=2, enforce_eager=False, extra_arguments=("--seed", "1")),
            price=Price(0.25, 1e-7),
            sampling={"temperature": 0, "stop": ["\n"]},
            enabled=False,
        ),
    ],
)
def test_a_form_that_is_sent_as_it_was_shown_changes_nothing(card: ExpertCard) -> None:
    view = ExpertModel.from_card(card).model_dump(mode="json")

    body, problems = body_of(EXPERT, form_of(shown(EXPERT, view)))

    assert not problems
    assert parse(ExpertModel, body).to_card() == card


def test_fields_are_of_the_kind_that_the_model_wants_and_say_what_it_says() -> None:
    assert EXPERT["id"].required
    assert "Lower-case letters" in EXPERT["id"].help
    assert [
        EXPERT[name].kind for name in ("backend", "capabilities", "skills", "sampling", "price.prompt", "max_in_flight", "enabled")
    ] == [
        Kind.CHOICE,
        Kind.CHOICES,
        Kind.LINES,
        Kind.JSON,
        Kind.NUMBER,
        Kind.WHOLE,
        Kind.FLAG,
    ]
    assert EXPERT["serving.enforce_eager"].kind is Kind.MAYBE
    assert EXPERT["backend"].options == tuple(Backend)
    assert EXPERT["timeout_s"].default == 120.0


@pytest.mark.parametrize("model", [ExpertModel, StrategyModel, KeyModel, ProfileRunBody])
def test_every_field_of_every_model_has_a_place_in_its_form(model: Any) -> None:
    """A field that a model gains is in its form the same day, or this fails."""
    fields = fields_of(model)
    assert {name.partition(".")[0] for name in fields} == set(model.model_fields)


def test_what_is_left_empty_is_left_out() -> None:
    body, problems = body_of(
        EXPERT, Form([("id", "a"), ("backend", "embedded"), ("model", " m "), ("timeout_s", ""), ("skills", "\r\n \r\n")])
    )

    assert not problems
    assert body == {"id": "a", "backend": "embedded", "model": "m", "capabilities": [], "roles": [], "enabled": False} | {
        "serving": {"sleep_mode": False, "pinned": False}
    }


def test_what_cannot_be_asked_is_told_beside_its_field_and_stays_as_it_was_written() -> None:
    form = Form([("id", "a"), ("sampling", "{temperature: 0"), ("max_in_flight", "many")])

    body, problems = body_of(EXPERT, form)

    assert problems.of("sampling") is not None
    assert problems.of("model") == "is missing"
    assert body["max_in_flight"] == "many"  # the API says what it wants there
    assert given(EXPERT, form)["sampling"] == "{temperature: 0"


def test_the_lines_of_an_error_find_their_fields() -> None:
    message = (
        "id: must be lower-case\nprice.prompt: must be a number\ncapabilities[1]: is not known\nsomething else\nserving: is only for vllm"
    )
    problems = problems_of(message, "id", EXPERT)

    assert problems.of("id") == "must be lower-case"
    assert problems.of("price.prompt") == "must be a number"
    assert problems.of("capabilities") == "is not known"
    assert problems.general == ["something else", "serving: is only for vllm"]


def test_an_error_that_names_its_field_only_in_param_finds_it_too() -> None:
    assert problems_of("the expert id 'a' is taken", "id", EXPERT).of("id") == "the expert id 'a' is taken"
    assert problems_of("no such thing", None, EXPERT).general == ["no such thing"]


def test_a_form_with_too_many_fields_or_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_form(b"&".join(b"a=1" for _ in range(3000)))
    with pytest.raises(InvalidRequest):
        parse_form(b"\xff=1")


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999", "9" * 5000])
def test_a_number_that_no_json_can_hold_is_told_beside_its_field(text: str) -> None:
    _, problems = body_of(EXPERT, form_of({"id": "a", "backend": "openai", "model": "m", "parameters_b": text}))

    assert problems.of("parameters_b") == "must be a finite number"


@pytest.mark.parametrize("text", ['{"temperature": NaN}', '{"temperature": 1e999}', '{"stop": "\\ud800"}', "[" * 100_000])
def test_json_that_cannot_be_sent_on_is_told_beside_its_field(text: str) -> None:
    _, problems = body_of(EXPERT, form_of({"id": "a", "backend": "openai", "model": "m", "sampling": text}))

    assert (problems.of("sampling") or "").startswith(("is no JSON", "is nested"))
