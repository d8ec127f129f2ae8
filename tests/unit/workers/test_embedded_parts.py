"""The parts of the embedded engine, one by one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ExpertAuthFailed, ExpertProtocolError, ExpertRejected, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from workers.credentials import resolve_api_key
from workers.discovery import DiscoveredModel, discovered_models
from workers.embedded.constraint import JsonAnswer, ToolCall, constraint_of
from workers.embedded.folder import find_folder
from workers.embedded.params import Sampling, generation_of
from workers.embedded.sampler import NoTokenLeft, Sampler, logprobs_of
from workers.embedded.text import TextAssembler, Vocabulary
from workers.limits import EmbeddedLimits
from zoo.training.tokenizer import build_tokenizer

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, -50.0], dtype=np.float32)
LIMITS = EmbeddedLimits()


def draws(sampling: Sampling, num: int = 2000) -> Counter[int]:
    sampler = Sampler(sampling, 0)
    return Counter(sampler.choose(LOGITS.copy()) for _ in range(num))


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draws(Sampling(temperature=0), 5) == {0: 5}


def test_draws_follow_the_probabilities() -> None:
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    seen = draws(Sampling(temperature=1, seed=1))

    for token in range(4):
        assert seen[token] / 2000 == pytest.approx(expected[token], abs=0.04)


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(temperature=1, seed=1, top_k=2), {0, 1}),
        (Sampling(temperature=1, seed=1, top_p=0.7), {0, 1}),
        (Sampling(temperature=1, seed=1, top_p=0.0), {0}),
        (Sampling(temperature=1, seed=1, min_p=0.2), {0, 1}),
        (Sampling(temperature=1, seed=1, logit_bias={0: -100, 3: 100}), {3}),
    ],
)
def test_each_filter_keeps_what_it_should(sampling: Sampling, possible: set[int]) -> None:
    assert set(draws(sampling)) == possible


def test_penalties_make_a_greedy_sequence_move_on() -> None:
    sampler = Sampler(Sampling(presence_penalty=1.5), 0)

    assert [sampler.choose(LOGITS.copy()) for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logits", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_logits_that_leave_nothing_to_choose_are_an_error(logits: list[float], temperature: float) -> None:
    with pytest.raises(NoTokenLeft):
        Sampler(Sampling(temperature=temperature), 0).choose(np.array(logits, dtype=np.float32))


def test_log_probabilities_sum_to_one() -> None:
    told = logprobs_of(LOGITS, 1, 5)

    assert sum(np.exp(logprob) for _, logprob in told.top) == pytest.approx(1)
    assert [token for token, _ in told.top] == [0, 1, 2, 3, 4]
    assert told.logprob == told.top[1][1]


@pytest.fixture(name="vocabulary", scope="module")
def _vocabulary() -> Vocabulary:
    return Vocabulary(build_tokenizer(64).backend_tokenizer)


def feed(vocabulary: Vocabulary, text: str, *stop: str) -> tuple[str, str]:
    assembler = TextAssembler(vocabulary, stop, reasoning=True)
    content = reasoning = ""
    for token in vocabulary.tokenizer.encode(text, add_special_tokens=False).ids:
        piece = assembler.feed(token, None)
        content, reasoning = content + piece.content, reasoning + piece.reasoning
        if assembler.stopped:
            break
    piece = assembler.finish()
    return reasoning + piece.reasoning, content + piece.content


@given(st.text(max_size=20).filter(lambda text: "<" not in text))
def test_bytes_become_the_text_that_they_came_from(vocabulary: Vocabulary, text: str) -> None:
    assert feed(vocabulary, text) == ("", text)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("abcabd", ("abd",), ("", "abc")),
        ("abcab", ("abd",), ("", "abcab")),
        ("aab", ("b", "ab"), ("", "a")),
        ("<think>a b</think>c b", ("b",), ("a b", "c ")),
        ("é€é", ("€",), ("", "é")),
        ("a<|end|>b", (), ("", "ab")),
    ],
)
def test_text_ends_before_a_stop_string(vocabulary: Vocabulary, text: str, stop: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert feed(vocabulary, text, *stop) == expected


def test_half_a_character_waits_for_its_other_half(vocabulary: Vocabulary) -> None:
    first, second = vocabulary.tokenizer.encode("é", add_special_tokens=False).ids
    assembler = TextAssembler(vocabulary, (), reasoning=False)

    assert assembler.feed(first, None).content == ""
    assert assembler.feed(second, None).content == "é"


def test_the_model_s_own_defaults_count_only_where_it_samples() -> None:
    greedy = generation_of({}, {"do_sample": False, "temperature": 0.7}, LIMITS, 288).sampling
    sampling = generation_of({"top_p": 0.5}, {"do_sample": True, "temperature": 0.7, "top_k": 5}, LIMITS, 288).sampling

    assert greedy == Sampling(temperature=0)
    assert sampling == Sampling(temperature=0.7, top_p=0.5, top_k=5)


def test_null_is_the_same_as_left_out() -> None:
    assert generation_of({"temperature": None, "stop": None, "n": None}, {}, LIMITS, 288) == generation_of({}, {}, LIMITS, 288)


def test_what_binds_an_answer() -> None:
    tool = {"type": "function", "function": {"name": "up", "parameters": {"type": "object"}}}

    assert constraint_of({"response_format": {"type": "text"}}, LIMITS) is None
    assert constraint_of({"tools": [tool], "tool_choice": "none"}, LIMITS) is None
    assert constraint_of({"response_format": {"type": "json_object"}}, LIMITS) == JsonAnswer('{"type": "object"}')
    assert constraint_of({"tools": [tool], "tool_choice": "required"}, LIMITS) == ToolCall((("up", '{"type": "object"}'),))


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (nested(32), "nested more than 64 levels"),
        (nested(100_000), "nested more than 64 levels"),
        ({"properties": {str(i): {} for i in range(513)}}, "more than 512 keys"),
        ({"enum": ["x" * 40_000]}, "letters, 32768 at most"),
        ({"enum": [0] * 40_000}, "more than 32768 letters"),
    ],
)
def test_a_schema_too_large_to_compile_is_refused_by_name(schema: dict[str, Any], message: str) -> None:
    tool = {"type": "function", "function": {"name": "up", "parameters": schema}}

    with pytest.raises(ExpertRejected, match=rf"response_format\.json_schema\.schema .*{message}"):
        constraint_of({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}, LIMITS)
    with pytest.raises(ExpertRejected, match=rf"tools\[0\]\.function\.parameters .*{message}"):
        constraint_of({"tools": [tool], "tool_choice": "required"}, LIMITS)


def test_schemas_of_many_tools_count_together() -> None:
    tools = [{"type": "function", "function": {"name": f"t{i}", "parameters": {"enum": ["x" * 5_000]}}} for i in range(7)]

    assert constraint_of({"tools": tools[:6], "tool_choice": "required"}, LIMITS) is not None
    with pytest.raises(ExpertRejected, match="32768 letters together"):
        constraint_of({"tools": tools, "tool_choice": "required"}, LIMITS)


def test_a_schema_of_ordinary_size_is_taken_as_it_is() -> None:
    text = json.dumps(nested(31))

    assert constraint_of({"response_format": {"type": "json_schema", "json_schema": {"schema": nested(31)}}}, LIMITS) == JsonAnswer(text)


def test_an_adapter_s_base_is_its_sibling(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    card = ExpertCard("e1", Backend.EMBEDDED, "lora")
    below, absolute = find_folder(card, tmp_path), find_folder(ExpertCard("e1", Backend.EMBEDDED, str(tmp_path / "lora")), Path("/nowhere"))

    assert below == absolute
    assert below.base == (tmp_path / "base").resolve()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(ExpertUnreachable, match="names the base model"):
        find_folder(card, tmp_path)


def test_secrets_are_found_by_reference_only() -> None:
    assert resolve_api_key(None, {}) is None
    assert resolve_api_key("env:A", {"A": " s "}) == "s"
    for reference in ("sk-1234", "env:", "env:B", "vault:A"):
        with pytest.raises(ExpertAuthFailed) as caught:
            resolve_api_key(reference, {"A": "s", "B": " "})
        assert "sk-1234" not in caught.value.message


@pytest.mark.parametrize("secret", ["sk-12345\nsk-67890", "sk-12345\x07", "sk-12345\udcff"])
def test_what_no_header_can_hold_is_told_without_the_secret(secret: str) -> None:
    with pytest.raises(ExpertAuthFailed, match="the environment variable A holds a line break") as caught:
        resolve_api_key("env:A", {"A": secret})

    assert "12345" not in caught.value.message


@pytest.mark.parametrize("name", ["CONSILIUM_ADMIN_KEY", "STACK_POSTGRES_PASSWORD", "consilium_admin_key"])
def test_no_secret_of_the_service_goes_to_an_expert(name: str) -> None:
    with pytest.raises(ExpertAuthFailed, match="goes to no expert"):
        resolve_api_key(f"env:{name}", {name: "root"})


def test_discovery_reads_what_servers_list() -> None:
    models = discovered_models(
        {"data": [{"id": "a"}, {"id": "l", "parent": "b"}, {"id": "b", "max_model_len": 512}, {"x": 1}]}, "http://h/v1"
    )

    assert models == [DiscoveredModel("a"), DiscoveredModel("b", 512), DiscoveredModel("l", 512, "b")]
    with pytest.raises(ExpertProtocolError, match="http://h/models"):
        discovered_models([], "http://h")
