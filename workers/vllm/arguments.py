"""Extra arguments for vLLM as people write them: what can be passed on, and what the service sets itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from domain.errors import InvalidRequest

MAX_ARGUMENTS = 64
"""Extra arguments of one server. vLLM knows some three hundred; nobody needs this many at once."""
MAX_ARGUMENT_CHARS = 8192
"""Letters of one of them; JSON configurations take a few hundred."""

_LOOPBACK = "every server listens on loopback, on a port of its own"
_AT_RUN_TIME = "adapters are loaded at run time, each as the expert that it is"
_ONE_PROCESS = "a server has one API process, so that adapters and sleep reach all of it; start several servers instead"
SET_BY_US: Mapping[str, str] = {
    "model": "write `model` instead",
    "served-model-name": "write `served_name` instead",
    "dtype": "write `dtype` instead",
    "max-model-len": "write `max_model_len` instead",
    "tensor-parallel-size": "write `tensor_parallel` instead",
    "tp": "write `tensor_parallel` instead",
    "gpu-memory-utilization": "write `gpu_memory_utilization` instead",
    "enforce-eager": "write `enforce_eager` instead",
    "max-lora-rank": "write `max_lora_rank` instead",
    "max-loras": "write `max_loras` instead",
    "enable-lora": "it follows from `max_lora_rank`",
    "enable-sleep-mode": "write `sleep_mode` instead",
    "lora-modules": _AT_RUN_TIME,
    "host": _LOOPBACK,
    "port": _LOOPBACK,
    "uds": _LOOPBACK,
    "grpc": _LOOPBACK,
    "root-path": _LOOPBACK,
    "ssl-keyfile": _LOOPBACK,
    "ssl-certfile": _LOOPBACK,
    "api-key": "only this machine reaches the server, and the service asks it without a key",
    "config": "a file could set anything; write its arguments out",
    "headless": _ONE_PROCESS,
    "api-server-count": _ONE_PROCESS,
    "asc": _ONE_PROCESS,
    "data-parallel-size": _ONE_PROCESS,
    "dp": _ONE_PROCESS,
    "disable-uvicorn-access-log": "a line for each request would push everything else out of the log",
}
"""Arguments of vLLM that are not for people to pass on, and what to do instead."""

_NUMBER = re.compile(r"-\d")


def check_extra_arguments(arguments: Sequence[str]) -> None:
    """Raise ``InvalidRequest`` for the first of *arguments* that cannot be passed on, saying what to write.

    Right is what a shell would pass: ``("--max-num-seqs", "8", "--kv-cache-dtype=fp8", "-O3")``. Whether vLLM knows them it says
    itself when it starts.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise _refused(f"there are {len(arguments)} extra arguments, at most {MAX_ARGUMENTS} are passed on")
    seen: set[str] = set()
    for place, argument in enumerate(arguments):
        _check_text(argument)
        if not _is_flag(argument):
            if place == 0:
                raise _refused(f"the first extra argument is {argument!r}; it must be a flag such as --max-num-seqs, values follow flags")
            continue
        written = argument.split("=", 1)[0]
        name = _name(written)
        if not name:
            raise _refused(f"the extra argument {argument!r} has no name")
        if any(letter.isspace() for letter in written):
            first, *rest = argument.split(maxsplit=1)
            raise _refused(f"write flag and value as two entries, {first!r} and {''.join(rest)!r}, instead of {argument!r}")
        if (ours := _ours(written, name)) is not None:
            raise _refused(f"the extra argument {argument!r} cannot be passed on: {SET_BY_US[ours]}")
        # One JSON argument may be written in parts (--compilation-config.mode 3 --compilation-config.backend eager).
        whole = written.lstrip("-").replace("_", "-")
        if whole in seen and not whole.endswith("+"):
            raise _refused(f"the extra argument {written!r} is there twice; vLLM would take the last one and say nothing")
        seen.add(whole)


def _check_text(argument: object) -> None:
    if not isinstance(argument, str):
        raise _refused(f"the extra argument {argument!r} is no text; write it in quotes")
    if not argument.strip():
        raise _refused("an extra argument is empty")
    if "\0" in argument or len(argument) > MAX_ARGUMENT_CHARS:
        raise _refused(f"an extra argument is longer than {MAX_ARGUMENT_CHARS} letters or holds a NUL: {argument[:60]!r}…")


def _is_flag(argument: str) -> bool:
    return argument.startswith("-") and not _NUMBER.match(argument)


def _name(written: str) -> str:
    return written.lstrip("-").split(".", 1)[0].rstrip("+").replace("_", "-")


def _ours(written: str, name: str) -> str | None:
    """Which of ours *name* means. vLLM takes ``_`` for ``-``, ``--no-x`` for the contrary of ``--x``, and any beginning of a
    long name that is no name itself."""
    for candidate in (name, name.removeprefix("no-")):
        if candidate in SET_BY_US:
            return candidate
        if written.startswith("--") and candidate:
            for known in SET_BY_US:
                if known.startswith(candidate):
                    return known
    return None


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="extra_arguments")
