"""What vLLM is started with."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from workers.vllm.command import LORA_RANKS, ServerLaunch, VllmProgram, argument_list, environment, fingerprint, settings_of

MODULE = VllmProgram.module(Path("/venv/bin/python"))
ON_CPU = ServerLaunch("zoo", "/weights/generalist", "generalist", dtype="bfloat16", max_model_len=512, max_lora_rank=20, kv_cache_gb=2)
ON_GPU = ServerLaunch("big", "Qwen/Qwen2.5-7B-Instruct", "qwen", tensor_parallel=2, gpus=("0", "3"), gpu_memory_utilization=0.45)


def test_the_command_line_on_processors() -> None:
    assert argument_list(replace(ON_CPU, extra_arguments=("--max-num-seqs", "64")), MODULE, port=4711) == (
        "/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/weights/generalist",
        "--served-model-name", "generalist", "--host", "127.0.0.1", "--port", "4711", "--disable-uvicorn-access-log",
        "--dtype", "bfloat16", "--max-model-len", "512",
        "--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor",
        "--enable-lora", "--max-lora-rank", "32", "--max-loras", "8", "--enforce-eager", "--max-num-seqs", "64",
    )  # fmt: skip


def test_a_model_in_several_parts_has_a_process_for_each() -> None:
    assert "--distributed-executor-backend" not in argument_list(replace(ON_CPU, tensor_parallel=2), MODULE, port=4711)


def test_the_command_line_on_gpus() -> None:
    assert argument_list(ON_GPU, VllmProgram.serve(), port=4711) == (
        "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--served-model-name", "qwen", "--host", "127.0.0.1", "--port", "4711",
        "--disable-uvicorn-access-log", "--dtype", "auto", "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.45",
        "--enable-sleep-mode",
    )  # fmt: skip


def test_the_environment_has_what_each_device_needs() -> None:
    cpu, gpu = settings_of(replace(ON_CPU, cpu_threads=2)), settings_of(ON_GPU)

    assert (cpu["CUDA_VISIBLE_DEVICES"], gpu["CUDA_VISIBLE_DEVICES"]) == ("", "0,3")
    assert (cpu["VLLM_CPU_KVCACHE_SPACE"], cpu["OMP_NUM_THREADS"]) == ("2", "2")
    assert "VLLM_CPU_KVCACHE_SPACE" not in gpu
    assert cpu["HF_HUB_OFFLINE"] == "1", "a folder needs no hub"
    assert "HF_HUB_OFFLINE" not in gpu
    for settings in (cpu, gpu):
        assert (settings["VLLM_SERVER_DEV_MODE"], settings["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]) == ("1", "True")


def test_the_environment_keeps_what_is_not_ours_and_wins_where_it_must() -> None:
    inherited = {
        "PATH": "/usr/bin", "LD_LIBRARY_PATH": "/cuda", "HF_TOKEN": "t", "VLLM_SERVER_DEV_MODE": "0", "OMP_NUM_THREADS": "9",
        "ANTHROPIC_API_KEY": "s", "CONSILIUM_DATABASE_URL": "s", "DATABASE_URL": "s", "PGPASSWORD": "s", "VLLM_API_KEY": "s",
        "PYTHONPATH": "/ours", "VIRTUAL_ENV": "/ours",
    }  # fmt: skip

    made = environment(ON_CPU, MODULE, inherited)

    assert made["PATH"] == "/venv/bin:/usr/bin"
    assert (made["LD_LIBRARY_PATH"], made["HF_TOKEN"], made["OMP_NUM_THREADS"]) == ("/cuda", "t", "9")
    assert made["VLLM_SERVER_DEV_MODE"] == "1"
    assert not {"s", "/ours"} & set(made.values())


SECRETS = (
    "AZURE_OPENAI_KEY", "GROQ_KEY", "LANGFUSE_SECRET_KEY", "STRIPE_SECRET_KEY", "SIGNING_PRIVATE_KEY", "REDIS_URL", "MY_PASSPHRASE",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SSH_KEY_FILE", "GITHUB_PAT", "GITHUB_TOKEN", "SMTP_PASS", "groq_key", "OPENAI_APIKEY",
)  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_a_server_is_not_given_what_bears_the_name_of_a_secret(name: str) -> None:
    assert name not in environment(ON_GPU, MODULE, {name: "s"})


@pytest.mark.parametrize("value", ["redis://:s3cret@cache:6379/0", "amqp://user:s3cret@queue"])
def test_a_server_is_not_given_addresses_with_a_password(value: str) -> None:
    assert "CELERY_RESULTS" not in environment(ON_GPU, MODULE, {"CELERY_RESULTS": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("HF_TOKEN", "t"),
        ("HTTPS_PROXY", "http://user:password@proxy:3128"),
        ("HF_ENDPOINT", "https://hub.example/mirror:8443/@x"),
        ("KEYBOARD", "us"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    ],
)
def test_a_server_keeps_what_only_looks_like_a_secret_or_is_needed(name: str, value: str) -> None:
    assert environment(ON_GPU, MODULE, {name: value})[name] == value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"server_id": "../x"}, "must begin with a lower-case letter"),
        ({"server_id": "a..b"}, "must begin with a lower-case letter"),
        ({"server_id": "a|b"}, "must begin with a lower-case letter"),
        ({"model": "weights/generalist/x"}, "absolute path"),
        ({"model": "./weights"}, "absolute path"),
        ({"model": "--trust-remote-code"}, "absolute path"),
        ({"model": ""}, "absolute path"),
        ({"served_name": "--host"}, "not begin with a dash"),
        ({"served_name": ""}, "must be printable"),
        ({"dtype": "int8"}, "vLLM knows auto, half"),
        ({"max_model_len": 0}, "max_model_len is 0"),
        ({"tensor_parallel": 0}, "tensor_parallel is 0"),
        ({"gpus": ("0", "1", "2"), "tensor_parallel": 2}, "3 GPUs cannot be divided"),
        ({"gpus": ("0", "0")}, "named twice"),
        ({"gpus": ("cuda:0",)}, "nvidia-smi -L"),
        ({"gpu_memory_utilization": 1.2}, "at most 1"),
        ({"gpu_memory_utilization": float("nan")}, "at most 1"),
        ({"kv_cache_gb": 0}, "kv_cache_gb is 0"),
        ({"max_lora_rank": 513}, "up to rank 512"),
        ({"extra_arguments": ("--port", "1")}, "port of its own"),
    ],
)
def test_what_vllm_could_not_be_started_with_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        replace(ON_CPU, **changes)


@given(st.integers(1, 512))
def test_the_rank_is_the_smallest_that_vllm_takes_and_the_adapters_fit(rank: int) -> None:
    taken = replace(ON_CPU, max_lora_rank=rank).lora_rank

    assert taken in LORA_RANKS
    assert taken >= rank
    assert not [smaller for smaller in LORA_RANKS if rank <= smaller < taken]


OTHER: dict[str, Any] = {
    "model": "/weights/other",
    "served_name": "other",
    "dtype": "float16",
    "max_model_len": 1024,
    "tensor_parallel": 2,
    "gpus": ("1",),
    "kv_cache_gb": 3,
    "cpu_threads": 7,
    "max_lora_rank": 64,
    "max_loras": 3,
    "enforce_eager": False,
    "extra_arguments": ("--max-num-seqs", "8"),
}


def test_the_fingerprint_changes_with_everything_that_changes_the_server() -> None:
    """An earlier service's server is taken over only if it is what would be started now."""
    made = {name: fingerprint(replace(ON_CPU, **{name: value}), MODULE) for name, value in OTHER.items()}
    made |= {"itself": fingerprint(ON_CPU, MODULE), "program": fingerprint(ON_CPU, VllmProgram.serve("/other/vllm"))}
    on_gpu: dict[str, Any] = {"gpu_memory_utilization": 0.5, "sleep_mode": False}
    made |= {name: fingerprint(replace(ON_GPU, **{name: value}), MODULE) for name, value in on_gpu.items()}

    assert len(set(made.values())) == len(made)
    assert {field.name for field in fields(ServerLaunch)} <= {*made, "server_id"}, "a new field belongs here"
    assert fingerprint(replace(ON_CPU), MODULE) == made["itself"]


def test_only_a_server_on_gpus_frees_memory_asleep() -> None:
    assert ON_GPU.frees_memory_asleep
    assert not replace(ON_GPU, sleep_mode=False).frees_memory_asleep
    assert not ON_CPU.frees_memory_asleep
