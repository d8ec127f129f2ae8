"""Which extra arguments are passed on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from workers.vllm.arguments import MAX_ARGUMENTS, SET_BY_US, check_extra_arguments


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--max-num-seqs", "64", "--swap-space=4", "-O3", "-pp", "2"),
        ("--seed", "-1"),
        ("--compilation-config.mode", "3", "--compilation-config.backend", "eager"),
        ("--middleware+", "a", "--middleware+", "b"),
        ("--override-generation-config", '{"temperature": 0}'),
        ("--enable-prefix-caching", "--no-async-scheduling"),
        ("--model-impl", "vllm", "--config-format", "hf"),
        ("--chat-template", "{{ a }}\n{{ b }}"),
    ],
)
def test_what_vllm_could_take_is_passed_on(arguments: tuple[str, ...]) -> None:
    check_extra_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "listens on loopback"),
        (("--port=1",), "port of its own"),
        (("--max_model_len", "8"), "write `max_model_len` instead"),
        (("--max-model", "8"), "write `max_model_len` instead"),
        (("--tensor-par", "8"), "write `tensor_parallel` instead"),
        (("-tp", "2"), "write `tensor_parallel` instead"),
        (("-tp=2",), "write `tensor_parallel` instead"),
        (("--no-enforce-eager",), "write `enforce_eager` instead"),
        (("--no-enable-lora",), "follows from `max_lora_rank`"),
        (("--api-key", "x"), "without a key"),
        (("--config", "/x.yaml"), "write its arguments out"),
        (("-asc", "4"), "one API process"),
        (("--max-num-seqs", "1", "--max-num-seqs", "2"), "is there twice"),
        (("--max_num_seqs", "1", "--max-num-seqs=2"), "is there twice"),
        (("--max-num-seqs 64",), "write flag and value as two entries, '--max-num-seqs' and '64'"),
        (("64",), "values follow flags"),
        (("--",), "has no name"),
        (("-",), "has no name"),
        (("--=x",), "has no name"),
        (("",), "is empty"),
        (("--seed", "\0"), "a NUL"),
        (("--seed", "x" * 10_000), "longer than"),
        (tuple(f"--x{number}" for number in range(MAX_ARGUMENTS + 1)), "at most 64"),
        (("--seed", 3), "is no text; write it in quotes"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_what_to_do(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        check_extra_arguments(arguments)

    assert refused.value.param == "extra_arguments"


@given(st.sampled_from(sorted(SET_BY_US)), st.booleans(), st.booleans(), st.booleans())
def test_nothing_that_we_set_gets_through_however_it_is_written(name: str, underscored: bool, negated: bool, joined: bool) -> None:
    written = f"{'no-' if negated else ''}{name}"
    flag = "--" + (written.replace("-", "_") if underscored else written)

    with pytest.raises(InvalidRequest):
        check_extra_arguments((f"{flag}=x",) if joined else (flag, "x"))


@given(st.sampled_from(sorted(SET_BY_US)), st.data())
def test_a_beginning_that_argparse_would_complete_to_one_of_ours_is_refused(name: str, data: st.DataObject) -> None:
    beginning = name[: data.draw(st.integers(1, len(name)))]

    with pytest.raises(InvalidRequest):
        check_extra_arguments((f"--{beginning}",))
