"""experts.yaml: read strictly, with errors that say what to write; written so that it reads back the same."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.adjustments import RoutingAdjustments
from domain.errors import InvalidRequest
from domain.experts import SERVING_DTYPES, Backend, Capability, ExpertCard, ExpertRole, Price, ServingOptions
from domain.routing import PickRule
from domain.strategy import AGGREGATOR_NAMES, Strategy
from experts_registry.manifest import export, json_schema, load_manifest, parse
from experts_registry.models import ExpertModel, ServingModel, StrategyModel

SCHEMA = Path(__file__).parents[3] / "docs" / "experts.schema.json"
MINIMAL = {"id": "numerals", "backend": "embedded", "model": "numerals"}
MANAGED = {"backend": "vllm", "model": "Org/Math"}
SERVED = {"id": "math", "backend": "openai", "model": "Org/Math", "base_url": "http://127.0.0.1:8000/v1"}


def _error(document: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load_manifest(yaml.safe_dump(document))
    return caught.value


def _expert_error(base: dict[str, Any] | None = None, **changes: Any) -> InvalidRequest:
    return _error({"experts": [{**(base or MINIMAL), **changes}]})


def test_a_card_needs_little_and_has_the_defaults_of_the_domain() -> None:
    manifest = load_manifest(yaml.safe_dump({"experts": [MINIMAL], "strategies": [{"id": "auto"}], "skills": {"algebra": None}}))

    assert manifest.to_cards() == [ExpertCard("numerals", Backend.EMBEDDED, "numerals")]
    assert manifest.to_strategies() == [Strategy("auto")]
    assert manifest.skills == {"algebra": ""}


def test_the_models_have_exactly_the_fields_of_the_domain() -> None:
    assert set(ExpertModel.model_fields) == {field.name for field in fields(ExpertCard)}
    assert set(ServingModel.model_fields) == {field.name for field in fields(ServingOptions)}
    assert set(StrategyModel.model_fields) == {field.name for field in fields(Strategy)}


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"bakcend": "openai"}, "experts[0].bakcend", "unknown key; did you mean 'backend'?"),
        ({"backend": "opnai"}, "experts[0].backend", "'opnai' is not known; did you mean 'openai'?"),
        ({"backend": 7}, "experts[0].backend", "must be one of embedded, openai, litellm, vllm"),
        ({"capabilities": ["tools", "json-schema"]}, "experts[0].capabilities[1]", "did you mean 'json_schema'?"),
        ({"roles": ["agregator"]}, "experts[0].roles[0]", "did you mean 'aggregator'?"),
        ({"roles": []}, "experts[0].roles", "must not be empty"),
        ({"context_length": "4096"}, "experts[0].context_length", "must be a whole number"),
        ({"context_length": 0}, "experts[0].context_length", "must be greater than or equal to 1"),
        ({"context_length": 2**31}, "experts[0].context_length", "must be less than or equal to"),
        ({"timeout_s": 0}, "experts[0].timeout_s", "must be greater than 0"),
        ({"timeout_s": float("inf")}, "experts[0].timeout_s", "must be a finite number"),
        ({"enabled": "on"}, "experts[0].enabled", "must be true or false"),
        ({"skills": "algebra"}, "experts[0].skills", "must be a list"),
        ({"skills": [True]}, "experts[0].skills[0]", "must be text; put it in quotes"),
        ({"skills": ["a", "a"]}, "experts[0].skills", "'a' stands twice"),
        ({"skills": [""]}, "experts[0].skills[0]", "must not be empty"),
        ({"price": {"promt": 1}}, "experts[0].price.promt", "unknown key; did you mean 'prompt'?"),
        ({"price": {"prompt": -1}}, "experts[0].price.prompt", "greater than or equal to 0"),
        ({"price": 3}, "experts[0].price", "must be a mapping"),
        ({"sampling": {"stream": True}}, "experts[0].sampling", "must not set 'stream'"),
        ({"sampling": {"float": [1, {"x": float("nan")}]}}, "experts[0].sampling.float[1].x", "must be a finite number"),
        ({"sampling": {1: 2}}, "experts[0].sampling[1]", "must be text; put it in quotes"),
        ({"extra_body": {"model": "x"}}, "experts[0].extra_body", "must not set 'model'"),
        ({"description": "a\0b"}, "experts[0].description", "NUL"),
        ({"model": ""}, "experts[0].model", "must not be empty"),
        ({"id": "Roman Numerals!"}, "experts[0].id", "did you mean 'roman-numerals'?"),
        ({"id": "auto"}, "experts[0].id", "'auto' is reserved"),
        ({"id": "consilium/auto"}, "experts[0].id", "is reserved"),
        ({"id": "-x"}, "experts[0].id", "begin with a letter or digit"),
        ({"id": "x" * 65}, "experts[0].id", "at most 64 characters"),
        ({"base_url": "http://x/v1"}, "experts[0].base_url", "makes no sense for backend 'embedded'"),
        ({"backend": "openai"}, "experts[0].base_url", "is needed for backend 'openai'"),
        ({"backend": "openai", "base_url": "127.0.0.1:8000"}, "experts[0].base_url", "must be an http or https URL"),
        ({"backend": "openai", "base_url": "ftp://x"}, "experts[0].base_url", "must be an http or https URL"),
        ({"backend": "openai", "base_url": "http://x:port"}, "experts[0].base_url", "must be an http or https URL"),
        ({"backend": "litellm", "adapter_of": "x"}, "experts[0].adapter_of", "only for the backends 'embedded' and 'vllm'"),
        ({"serving": {"pinned": True}}, "experts[0].serving", "only for backend 'vllm'"),
        ({**MANAGED, "model": "../x"}, "experts[0].model", "a folder's absolute path or an id on the hub"),
        ({**MANAGED, "adapter_of": "a b"}, "experts[0].adapter_of", "a folder's absolute path or an id on the hub"),
        ({**MANAGED, "base_url": "http://x/v1"}, "experts[0].base_url", "makes no sense for backend 'vllm'"),
        ({**MANAGED, "api_key": "env:KEY"}, "experts[0].api_key", "only the service can reach"),
        ({**MANAGED, "memory_mb": 0}, "experts[0].memory_mb", "must be greater than 0"),
        ({**MANAGED, "serving": {"dtpye": "half"}}, "experts[0].serving.dtpye", "unknown key; did you mean 'dtype'?"),
        ({**MANAGED, "serving": {"dtype": "bfloat-16"}}, "experts[0].serving.dtype", "did you mean 'bfloat16'?"),
        ({**MANAGED, "serving": {"gpus": [0]}}, "experts[0].serving.gpus[0]", "must be text; put it in quotes"),
        ({**MANAGED, "serving": {"gpus": ["first"]}}, "experts[0].serving.gpus[0]", "index or UUID"),
        ({**MANAGED, "serving": {"gpus": ["0"], "tensor_parallel": 2}}, "experts[0].serving.gpus", "cannot be divided by tensor_parallel"),
        ({**MANAGED, "serving": {"asleep_mb": 5.0}}, "experts[0].serving.asleep_mb", "only for a server on `gpus`"),
        ({**MANAGED, "serving": {"kv_cache_gb": 0}}, "experts[0].serving.kv_cache_gb", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_card_is_said_at_its_field(changes: dict[str, Any], param: str, says: str) -> None:
    error = _expert_error(**changes)

    assert error.param == param
    assert f"{param}: " in error.message
    assert says in error.message


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"pick": {"kind": "topk"}}, "strategies[0].pick.kind", "did you mean 'top_k'?"),
        ({"pick": {"treshold": 1}}, "strategies[0].pick.treshold", "did you mean 'threshold'?"),
        ({"pick": {"threshold": 0}}, "strategies[0].pick.threshold", "greater than 0"),
        ({"pick": {"k": 0}}, "strategies[0].pick.k", "greater than or equal to 1"),
        ({"aggregator": "fuser"}, "strategies[0].aggregator", "did you mean 'fuse'?"),
        ({"max_calls": 0}, "strategies[0].max_calls", "greater than or equal to 1"),
        ({"fallback_expert": "Bad Id"}, "strategies[0].fallback_expert", "did you mean 'bad-id'?"),
    ],
)
def test_what_is_wrong_with_a_strategy_is_said_at_its_field(changes: dict[str, Any], param: str, says: str) -> None:
    error = _error({"strategies": [{"id": "auto", **changes}]})

    assert error.param == param
    assert says in error.message


@pytest.mark.parametrize("key", ["env:CONSILIUM_ADMIN_KEY", "env:consilium_redis_url", "env:STACK_POSTGRES_PASSWORD"])
def test_no_card_may_name_a_secret_of_the_service(key: str) -> None:
    """An editor chooses the address that the key is sent to."""
    error = _expert_error(SERVED, api_key=key)

    assert error.param == "experts[0].api_key"
    assert "a variable of its own" in error.message


@pytest.mark.parametrize("key", ["sk-live-hunter2", "hunter2", "env:", "env:A B", "ENV:hunter2"])
def test_a_secret_in_the_place_of_its_reference_is_refused_and_not_repeated(key: str) -> None:
    error = _expert_error(SERVED, api_key=key)

    assert error.param == "experts[0].api_key"
    assert "env:OPENAI_API_KEY" in error.message
    assert "hunter2" not in error.message
    assert error.__suppress_context__


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    error = _expert_error(SERVED, base_url="http://me:hunter2@host/v1")

    assert "put the key into api_key" in error.message
    assert "hunter2" not in error.message


def test_every_problem_is_told_at_once() -> None:
    error = _error({"experts": [{"id": "a", "backend": "embedded"}, {**MINIMAL, "timeout_s": "x"}]})

    assert error.message == "experts[0].model: is missing\nexperts[1].timeout_s: must be a number"
    assert error.param == "experts[0].model"


def test_an_id_that_stands_twice_is_told() -> None:
    assert "expert 'numerals' stands twice" in _error({"experts": [MINIMAL, MINIMAL]}).message
    assert "strategy 'auto' stands twice" in _error({"strategies": [{"id": "auto"}, {"id": "auto"}]}).message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("experts: [\n  {id: a", "no valid YAML in line 2"),
        ("skills:\n  algebra: x\n  algebra: y\n", "no valid YAML in line 3: the key 'algebra' stands twice"),
        ("", "must be a mapping with the keys experts, strategies, skills"),
        ("- a", "must be a mapping"),
        ("expert: []", "expert: unknown key; did you mean 'experts'?"),
        ("a: 1\n---\nb: 2", "no valid YAML"),
        ("skills: {a: !!python/object:os.system {}}", "no valid YAML"),
        ("skills: {a: 2024-01-01}", "skills.a: must be text; put it in quotes"),
        ("a: \x00", "no valid YAML"),
        ("experts: 2024-13-45", "no valid YAML"),
        ("skills: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_text_that_is_no_manifest_is_told(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_manifest(text)

    assert says in caught.value.message


def test_a_body_is_parsed_like_an_entry_of_the_manifest() -> None:
    """The admin REST uses the same models and the same words."""
    with pytest.raises(InvalidRequest) as caught:
        parse(ExpertModel, {**MINIMAL, "backend": "embeded"})

    assert caught.value.param == "backend"
    assert "did you mean 'embedded'?" in caught.value.message
    assert parse(ExpertModel, {**MINIMAL, "version": 4}).to_card().version == 4


def test_what_was_read_may_be_sent_back() -> None:
    """GET, edit, PUT: the representation of a card is a valid body."""
    card = ExpertCard("math", Backend.OPENAI, "m", base_url="http://x/v1", capabilities=frozenset(Capability), version=3)

    assert parse(ExpertModel, ExpertModel.from_card(card).model_dump(mode="json")).to_card() == card


def test_the_published_schema_is_current() -> None:
    """Write it anew with `consilium experts schema`."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema()


def test_the_schema_accepts_what_is_accepted_and_refuses_what_is_not() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())

    assert validator.is_valid({"experts": [MINIMAL, SERVED], "strategies": [{"id": "auto", "pick": {"kind": "top_k"}}]})
    assert not validator.is_valid({"experts": [{**MINIMAL, "backend": "opnai"}]})
    assert not validator.is_valid({"experts": [{**MINIMAL, "bakcend": "openai"}]})
    assert not validator.is_valid({"strategies": [{"id": "auto", "aggregator": "fuser"}]})


# --- what is exported reads back the same ----------------------------------------------------------------------------

ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda text: text != "auto")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
names = st.lists(texts.filter(bool), max_size=3, unique=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts.filter(lambda text: text not in {"model", "messages", "stream"}), json_values, max_size=3)
amounts = st.floats(min_value=0, max_value=1e6)
seconds = st.floats(min_value=0.001, max_value=86_400)


serving_options = st.builds(
    ServingOptions,
    dtype=st.sampled_from(SERVING_DTYPES),
    gpus=st.sampled_from([("0", "1"), ("2",)]),
    gpu_memory_utilization=st.none() | st.floats(min_value=0.01, max_value=1),
    kv_cache_gb=st.integers(1, 64),
    cpu_threads=st.none() | st.integers(1, 64),
    max_lora_rank=st.none() | st.integers(1, 512),
    enforce_eager=st.none() | st.booleans(),
    extra_arguments=st.lists(texts, max_size=2).map(tuple),
    pinned=st.booleans(),
    asleep_mb=st.none() | amounts,
    load_s=st.none() | st.floats(min_value=0, max_value=86_400),
)
places = st.sampled_from(["/models/base", "Org/Base-7B"])


@st.composite
def cards(draw: st.DrawFn) -> ExpertCard:
    backend = draw(st.sampled_from(Backend))
    card = ExpertCard(
        id=draw(ids),
        backend=backend,
        model=draw(places if backend is Backend.VLLM else texts.filter(bool)),
        description=draw(texts),
        base_url="https://host.example:8443/v1" if backend is Backend.OPENAI else None,
        api_key=draw(st.none() | st.just("env:SOME_KEY")) if backend is not Backend.VLLM else None,
        adapter_of=draw(st.none() | {Backend.EMBEDDED: texts, Backend.VLLM: places}.get(backend, st.none())),
        context_length=draw(st.integers(1, 2**31 - 1)),
        chars_per_token=draw(st.floats(min_value=0.1, max_value=64)),
        capabilities=frozenset(draw(st.sets(st.sampled_from(Capability)))),
        roles=frozenset(draw(st.sets(st.sampled_from(ExpertRole), min_size=1))),
        skills=tuple(draw(names)),
        exemplars=tuple(draw(st.lists(texts, max_size=2))),
        labels=frozenset(draw(names)),
        parameters_b=draw(st.none() | st.floats(min_value=0.001, max_value=1e4)),
        memory_mb=draw(st.none() | (seconds if backend is Backend.VLLM else amounts)),
        serving=draw(serving_options) if backend is Backend.VLLM else ServingOptions(),
        price=Price(draw(amounts), draw(amounts)),
    )
    return replace(
        card,
        sampling=draw(json_objects),
        extra_body=draw(json_objects),
        aggregation_prompt=draw(ids),
        max_in_flight=draw(st.integers(1, 100_000)),
        queue_timeout_s=draw(st.floats(min_value=0, max_value=86_400)),
        timeout_s=draw(seconds),
        enabled=draw(st.booleans()),
    )


scores = st.floats(0, 1)
adjustments = st.builds(
    RoutingAdjustments,
    allow=st.none() | st.lists(ids, max_size=3, unique=True).map(tuple),
    deny=st.lists(ids, max_size=3, unique=True).map(tuple),
    boost=st.dictionaries(ids, st.floats(-1, 1), max_size=3),
    price_weight=st.floats(0, 1000),
    load_weight=scores,
    session_weight=scores,
)
strategies = st.builds(
    Strategy,
    id=ids,
    description=texts,
    router=ids,
    router_options=json_objects,
    pick=st.builds(
        PickRule,
        kind=st.sampled_from(["top_k", "sample", "dynamic"]),
        k=st.integers(1, 64),
        threshold=st.floats(min_value=0.001, max_value=1),
    ),
    adjustments=adjustments,
    aggregator=st.sampled_from(AGGREGATOR_NAMES),
    aggregator_expert=st.none() | ids,
    fallback_expert=st.none() | ids,
    max_calls=st.integers(1, 1000),
    timeout_s=seconds,
    enabled=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(cards(), max_size=3, unique_by=lambda card: card.id),
    st.lists(strategies, max_size=3, unique_by=lambda strategy: strategy.id),
    st.dictionaries(texts.filter(bool), texts, max_size=3),
)
def test_what_is_exported_reads_back_the_same(some_cards: list[ExpertCard], some: list[Strategy], skills: dict[str, str]) -> None:
    manifest = load_manifest(export(some_cards, some, skills))

    assert manifest.to_cards() == sorted(some_cards, key=lambda card: card.id)
    assert manifest.to_strategies() == sorted(some, key=lambda strategy: strategy.id)
    assert manifest.skills == skills


def test_a_gate_goes_out_and_in_with_its_threshold() -> None:
    """One that is the kind's own is not written, also where another kind has another."""
    gates = [Strategy(f"gate-{n}", pick=PickRule("gate", 4, threshold)) for n, threshold in enumerate((0.15, 0.5, 0.3))]
    text = export([], gates, {})

    assert [row["pick"] for row in yaml.safe_load(text)["strategies"]] == [
        {"kind": "gate", "k": 4},
        {"kind": "gate", "k": 4, "threshold": 0.5},
        {"kind": "gate", "k": 4, "threshold": 0.3},
    ]
    assert load_manifest(text).to_strategies() == gates


def test_an_export_is_short_and_tells_no_versions() -> None:
    text = export([ExpertCard("numerals", Backend.EMBEDDED, "numerals", version=7)], [Strategy("auto", version=3)], {"a": "b"})

    assert yaml.safe_load(text) == {"experts": [MINIMAL], "strategies": [{"id": "auto"}], "skills": {"a": "b"}}
