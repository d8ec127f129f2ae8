"""From what is wanted of a vLLM server to its command line and environment. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.errors import InvalidRequest
from domain.experts import SERVING_DTYPES
from workers.vllm.arguments import check_extra_arguments

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank."""

IN_PROCESS_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor that runs the model in the engine's own process (docs/adr/0013). Its short name ``uni`` is not heeded on
processors; the class is."""

# A server's id is a folder's name, and part of its processes' environment.
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


@dataclass(frozen=True, slots=True)
class ServerLaunch:
    """What is wanted of one server. Raises ``InvalidRequest`` when vLLM could not be started like that."""

    server_id: str
    model: str
    """A folder, as an absolute path, or a model's id on the hub."""
    served_name: str
    """What calls name as ``model`` to mean the model itself, without an adapter."""
    dtype: str = "auto"
    max_model_len: int | None = None
    """Tokens, prompt and completion together; None leaves it to the model's configuration."""
    tensor_parallel: int = 1
    """Parts that each layer is split into, one a GPU."""
    gpus: tuple[str, ...] = ()
    """Its GPUs, as indices or as UUIDs (also of MIG slices). None: it runs on the processors."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory that it takes."""
    kv_cache_gb: int = 1
    """GB of memory for keys and values, for a server on the processors."""
    cpu_threads: int | None = None
    """Threads of a server on the processors; None leaves it to the libraries."""
    max_lora_rank: int | None = None
    """Largest rank of the adapters that it will be given, rounded up to one that vLLM knows. None: it takes no adapters."""
    max_loras: int = 8
    """Adapters that one step of the engine may mix. Further ones can be loaded, and wait for their turn."""
    enforce_eager: bool | None = None
    """Without compiled graphs. None: on processors, where a start takes 30 s instead of 80; not on GPUs."""
    sleep_mode: bool = True
    """Whether a server on GPUs can give its memory back while it sleeps. On processors vLLM cannot, whatever is written here."""
    extra_arguments: tuple[str, ...] = ()
    """Passed on to vLLM as they are."""

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        check_extra_arguments(self.extra_arguments)

    @property
    def on_gpu(self) -> bool:
        return bool(self.gpus)

    @property
    def frees_memory_asleep(self) -> bool:
        """Whether putting it to sleep frees memory. On processors vLLM 0.32 only pauses, and keeps all it holds."""
        return self.on_gpu and self.sleep_mode

    @property
    def eager(self) -> bool:
        return not self.on_gpu if self.enforce_eager is None else self.enforce_eager

    @property
    def lora_rank(self) -> int | None:
        """The smallest rank that vLLM takes and every adapter fits; None when there are no adapters."""
        if self.max_lora_rank is None:
            return None
        return next(rank for rank in LORA_RANKS if rank >= self.max_lora_rank)

    def _check_names(self) -> None:
        if not _ID.fullmatch(self.server_id) or ".." in self.server_id:
            msg = f"the server id {self.server_id!r} must begin with a lower-case letter or digit, and hold only those, dots, dashes and _"
            raise InvalidRequest(msg, param="server_id")
        if "\0" in self.model or not (Path(self.model).is_absolute() or _HUB_ID.fullmatch(self.model)):
            msg = f"the model {self.model!r} must be a folder's absolute path, or an id on the hub such as Qwen/Qwen2.5-7B-Instruct"
            raise self._wrong("model", msg)
        if not self.served_name or self.served_name.startswith("-") or not self.served_name.isprintable():
            raise self._wrong("served_name", f"the served name {self.served_name!r} must be printable, and not begin with a dash")
        if self.dtype not in SERVING_DTYPES:
            raise self._wrong("dtype", f"dtype is {self.dtype!r}; vLLM knows {', '.join(SERVING_DTYPES)}")
        if wrong := [gpu for gpu in self.gpus if not _GPU.fullmatch(gpu)]:
            raise self._wrong("gpus", f"{wrong[0]!r} is no GPU; write its index or its UUID, as nvidia-smi -L shows them")
        if len(set(self.gpus)) < len(self.gpus):
            raise self._wrong("gpus", f"a GPU is named twice in {', '.join(self.gpus)}")

    def _check_numbers(self) -> None:
        for name in ("max_model_len", "tensor_parallel", "kv_cache_gb", "cpu_threads", "max_lora_rank", "max_loras"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise self._wrong(name, f"{name} is {value}, it must be 1 or more")
        if not (math.isfinite(self.gpu_memory_utilization) and 0 < self.gpu_memory_utilization <= 1):
            msg = f"gpu_memory_utilization is {self.gpu_memory_utilization:g}, it must be above 0 and at most 1"
            raise self._wrong("gpu_memory_utilization", msg)
        if self.max_lora_rank is not None and self.max_lora_rank > LORA_RANKS[-1]:
            raise self._wrong("max_lora_rank", f"max_lora_rank is {self.max_lora_rank}; vLLM takes adapters up to rank {LORA_RANKS[-1]}")
        if self.gpus and len(self.gpus) % self.tensor_parallel:
            msg = f"tensor_parallel is {self.tensor_parallel}, which {len(self.gpus)} GPUs cannot be divided by"
            raise self._wrong("tensor_parallel", msg)

    def _wrong(self, name: str, message: str) -> InvalidRequest:
        return InvalidRequest(f"server {self.server_id!r}: {message}", param=name)


@dataclass(frozen=True, slots=True)
class VllmProgram:
    """How vLLM is called on this machine."""

    argv: tuple[str, ...]
    positional_model: bool = False
    """Whether the model follows *argv* as it is, instead of as ``--model``."""

    @classmethod
    def module(cls, python: Path) -> VllmProgram:
        """The Python of an environment with vLLM. The way for the processors' package, whose command does not find itself."""
        return cls((str(python), "-m", "vllm.entrypoints.openai.api_server"))

    @classmethod
    def serve(cls, executable: str = "vllm") -> VllmProgram:
        """The command of the official package."""
        return cls((executable, "serve"), positional_model=True)


@dataclass(frozen=True, slots=True)
class Installation:
    """The vLLM that there is for processors, and the one for GPUs."""

    cpu: VllmProgram | None = None
    gpu: VllmProgram | None = None

    def program_for(self, launch: ServerLaunch) -> VllmProgram:
        """Raises ``InvalidRequest`` when there is none."""
        program = self.gpu if launch.on_gpu else self.cpu
        if program is None:
            kind, advice = ("GPUs", "install the official package") if launch.on_gpu else ("processors", "run `make vllm`")
            raise InvalidRequest(f"server {launch.server_id!r} needs a vLLM for {kind}, and none is set up: {advice}", param="gpus")
        return program


def argument_list(launch: ServerLaunch, program: VllmProgram, *, port: int) -> tuple[str, ...]:
    """The command line, program first. People's own arguments stand last."""
    model = (launch.model,) if program.positional_model else ("--model", launch.model)
    arguments = [*program.argv, *model, "--served-model-name", launch.served_name]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    arguments += ["--dtype", launch.dtype]
    if launch.max_model_len is not None:
        arguments += ["--max-model-len", str(launch.max_model_len)]
    if launch.tensor_parallel > 1:
        arguments += ["--tensor-parallel-size", str(launch.tensor_parallel)]
    elif not launch.on_gpu:
        arguments += ["--distributed-executor-backend", IN_PROCESS_EXECUTOR]
    if launch.on_gpu:
        arguments += ["--gpu-memory-utilization", f"{launch.gpu_memory_utilization:g}"]
        arguments += ["--enable-sleep-mode"] if launch.sleep_mode else []
    if launch.lora_rank is not None:
        arguments += ["--enable-lora", "--max-lora-rank", str(launch.lora_rank), "--max-loras", str(launch.max_loras)]
    if launch.eager:
        arguments.append("--enforce-eager")
    return (*arguments, *launch.extra_arguments)


def settings_of(launch: ServerLaunch) -> dict[str, str]:
    """The variables that we set for the server, whatever the service's own environment says."""
    settings = {
        "VLLM_SERVER_DEV_MODE": "1",  # sleep, wake_up, is_sleeping
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(launch.gpus),
        "PYTHONUNBUFFERED": "1",
        # A process that renames itself would otherwise write over its environment, by which we know it again (`procfs`).
        "SPT_NOENV": "1",
    }
    if Path(launch.model).is_absolute():
        settings["HF_HUB_OFFLINE"] = "1"  # all of it is in the folder
    if not launch.on_gpu:
        settings["VLLM_CPU_KVCACHE_SPACE"] = str(launch.kv_cache_gb)
        # Bound to cores, several servers would share the first ones and leave the rest idle.
        settings["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        if launch.cpu_threads is not None:
            settings["OMP_NUM_THREADS"] = str(launch.cpu_threads)
    return settings


# A part of the name between underscores, wherever it stands (SIGNING_PRIVATE_KEY, AWS_ACCESS_KEY_ID), or its end (PGPASSWORD).
# Whole parts: TOKENIZERS_PARALLELISM is none.
_SECRET = re.compile(
    r"(?:^|_)(?:KEYS?|SECRETS?|TOKEN|PASS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|DSN|PAT)(?:_|$)"
    r"|(?:API_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|DSN)$"
    r"|(?:DATABASE|DB|REDIS|POSTGRES|POSTGRESQL|MYSQL|MONGO|MONGODB|AMQP|BROKER)_UR[LI]$"
)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_PROXY = re.compile(r"_PROXY$")
"""Of an address with a password in it these stay: a model may have to be fetched through them."""
_HUB_TOKENS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
_OF_OUR_PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"})


def environment(launch: ServerLaunch, program: VllmProgram, inherited: Mapping[str, str]) -> dict[str, str]:
    """The server's whole environment: *inherited* without our secrets and our Python, then ``settings_of``.

    The hub's token stays, a model may have to be fetched with it; providers' keys and our own settings are nothing to a server
    that may run a model's own code.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("CONSILIUM_") and name not in _OF_OUR_PYTHON and (name in _HUB_TOKENS or not _is_secret(name.upper(), value))
    }
    executable = Path(program.argv[0])
    if executable.is_absolute():  # as if its environment were activated: what it calls by name, it finds
        kept["PATH"] = os.pathsep.join((str(executable.parent), kept.get("PATH", os.defpath)))
    return {**kept, **settings_of(launch)}


def _is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret, by its *name* in capitals or by an address with a password."""
    return _SECRET.search(name) is not None or (_PROXY.search(name) is None and _PASSWORD_IN_URL.search(value) is not None)


def fingerprint(launch: ServerLaunch, program: VllmProgram) -> str:
    """Equal for two launches exactly when they start the same server, but for its port."""
    told = [argument_list(launch, program, port=0), sorted(settings_of(launch).items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
