"""OpenAI's request fields, as the engine understands them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.errors import ExpertRejected
from domain.quoting import quoted
from workers.embedded.constraint import Constraint, constraint_of
from workers.limits import EmbeddedLimits


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 is no limit."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken as the model gives it."""
        return self.temperature == 0 and not self.presence_penalty and not self.frequency_penalty and not self.logit_bias


@dataclass(frozen=True, slots=True)
class Generation:
    """One validated request to the engine."""

    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None is up to the end of the context."""
    stop: tuple[str, ...] = ()
    num_choices: int = 1
    top_logprobs: int | None = None
    """None is no log probabilities; 0 those of the chosen tokens only."""
    constraint: Constraint | None = None
    ignore_end: bool = False
    """vLLM's ``ignore_eos``: go on to ``max_tokens`` whatever the model says. For benchmarks."""


_MAX_LOGIT_BIAS = 100
"""OpenAI's bound. More would say no more: it is beyond any difference between two logits."""


def generation_of(params: Mapping[str, Any], defaults: Mapping[str, Any], limits: EmbeddedLimits, vocab_size: int) -> Generation:
    """The fields of *params*, for those left out the model's own *defaults* (``generation_config.json``).

    Unknown fields are ignored, as every server does. Raises ``ExpertRejected`` naming the field.
    """
    given = {name: value for name, value in params.items() if value is not None}
    own: Mapping[str, Any] = defaults if defaults.get("do_sample") else {}
    sampling = Sampling(
        temperature=_number(given, "temperature", 0, 2, own.get("temperature", 1.0) if own else 0.0),
        top_p=_number(given, "top_p", 0, 1, own.get("top_p") or 1.0),
        top_k=_integer(given, "top_k", -1, 2**31, own.get("top_k") or 0) or 0,
        min_p=_number(given, "min_p", 0, 1, own.get("min_p") or 0.0),
        presence_penalty=_number(given, "presence_penalty", -2, 2, 0.0),
        frequency_penalty=_number(given, "frequency_penalty", -2, 2, 0.0),
        logit_bias=_logit_bias(given.get("logit_bias", {}), vocab_size),
        seed=_integer(given, "seed", -(2**63), 2**64, None),
    )
    name = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    top_logprobs = _integer(given, "top_logprobs", 0, limits.max_top_logprobs, 0)
    return Generation(
        sampling=sampling,
        max_tokens=_integer(given, name, 1, 2**31, None),
        stop=_stop(given.get("stop", ()), limits.max_stop_strings),
        num_choices=_integer(given, "n", 1, limits.max_choices, 1) or 1,
        top_logprobs=top_logprobs if given.get("logprobs") else None,
        constraint=constraint_of(given, limits),
        ignore_end=bool(given.get("ignore_eos")),
    )


def _number(given: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ExpertRejected(f"{name} must be a number from {low:g} to {high:g}, not {quoted(value)}", param=name)
    return float(value)


def _integer(given: Mapping[str, Any], name: str, low: int, high: int, default: int | None) -> int | None:
    value = given.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ExpertRejected(f"{name} must be a whole number from {low} to {high}, not {quoted(value)}", param=name)
    return value


def _stop(value: Any, max_strings: int) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple) or not all(isinstance(text, str) for text in strings) or len(strings) > max_strings:
        raise ExpertRejected(f"stop must be a string or a list of at most {max_strings} strings, not {quoted(value)}", param="stop")
    return tuple(text for text in strings if text)


def _logit_bias(value: Any, vocab_size: int) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise ExpertRejected(f"logit_bias must be an object from token ids to numbers, not {quoted(value)}", param="logit_bias")
    biases = {}
    for name, bias in value.items():
        if not (str(name).isascii() and str(name).isdigit() and len(str(name)) < 10 and int(name) < vocab_size):
            raise ExpertRejected(
                f"logit_bias: {quoted(str(name))} is no token id of this expert (0 to {vocab_size - 1})", param="logit_bias"
            )
        biases[int(name)] = _number({f"logit_bias[{name}]": bias}, f"logit_bias[{name}]", -_MAX_LOGIT_BIAS, _MAX_LOGIT_BIAS, 0.0)
    return biases
