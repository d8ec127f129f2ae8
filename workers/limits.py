"""Every bound of the workers: its name, its unit and why it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds around the calls of all backends."""

    max_attempts: int = 3
    """Times that one call is sent, the first included."""
    retry_wait_initial_s: float = 0.1
    """Wait before the first retry; doubles with every further one."""
    retry_wait_max_s: float = 2.0
    """Longest wait between attempts when the expert names none."""
    fair_share: float = 0.9
    """Share of the card's ``timeout_s`` after which an unfinished call is the expert's fault, even if the request's deadline
    came first. Callers with little time must not open a circuit; a deadline a moment before the card's must not hide a hang."""
    check_timeout_s: float = 30.0
    """Time for the one call of ``check``; enough for a server that loads a model on demand."""
    check_load_timeout_s: float = 300.0
    """The same for an expert on a managed server, which may have to be loaded first; a tiny one takes half a minute for that, one
    of 70 B parameters several minutes."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the connections to OpenAI-compatible servers."""

    max_connections: int = 0
    """Open connections of this process to all servers; 0 is no ceiling. Each expert's ``max_in_flight`` bounds the calls."""
    connect_timeout_s: float = 5.0
    """Time to open a connection, with finding the name's address and TLS; a healthy server accepts at once, however busy it is."""
    keep_alive_s: float = 4.0
    """How long an idle connection is kept for the next call. vLLM, as every server on uvicorn, closes those that were idle for 5 s: one
    that is taken at that moment costs its call a failure and a pause."""
    max_response_bytes: int = 64 * 2**20
    """Largest response, or single event of a stream, that is read."""
    max_error_bytes: int = 64 * 2**10
    """How much of an error response is read."""


@dataclass(frozen=True, slots=True)
class EmbeddedLimits:
    """Bounds of the engine that runs experts in this process."""

    num_threads: int = 1
    """Threads of one matrix product. The models are so small that more only get in each other's way."""
    max_batch: int = 32
    """Sequences of one model that advance together. Larger batches win little and cost key/value memory."""
    max_waiting: int = 1024
    """Sequences that may wait for a place in a batch, over all models."""
    max_prefill_tokens: int = 4096
    """Prompt tokens, padding included, that are read in one step: bounds its memory and how long running streams pause."""
    max_models: int = 64
    """Models kept in memory; beyond it the one that was unused longest goes."""
    max_choices: int = 16
    """Largest ``n``."""
    max_top_logprobs: int = 20
    """Largest ``top_logprobs``; OpenAI's bound."""
    max_stop_strings: int = 16
    """Most stop strings; each is looked for at every token."""
    max_float32_parameters: int = 100_000_000
    """Up to this size weights are widened to float32, which is faster on CPUs without bfloat16 units; larger ones stay as stored."""
    grammar_cache_bytes: int = 8 * 2**20
    """Compiled grammars that are kept, for each tokenizer."""
    max_schema_chars: int = 32_768
    """Letters of all schemas of one request, as JSON. Compiling takes most schemas of this size milliseconds, few seconds."""
    max_schema_depth: int = 64
    """Levels of JSON in a schema, two for each nested object. Compiling takes the cube of it: 0.03 s here, 5 s at 400."""
    max_schema_keys: int = 512
    """Keys of one object in a schema. Compiling takes the cube of it as well: 0.5 s here, 50 s at 2000."""
    num_compiling: int = 1
    """Schemas compiled at once. It is CPU work, which the engine needs too."""
    max_compiling: int = 64
    """Schemas that may be compiled or wait for it."""
    inline_prompt_chars: int = 1_000
    """Up to this length a prompt is rendered on the event loop, which takes about half a millisecond; longer ones, and those with
    tools or flags for the template, in a thread."""
