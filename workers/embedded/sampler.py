"""From logits to a token."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.embedded.params import Sampling

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the model's own probabilities, before temperature and constraints."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens, likeliest first."""


class NoTokenLeft(ValueError):
    """The model's logits, or what was ruled out of them, leave nothing to choose from."""


class Sampler:
    """Chooses the tokens of one sequence. With a seed, the same choices every time, whoever shares the batch."""

    def __init__(self, sampling: Sampling, index: int) -> None:
        self._sampling = sampling
        # Every choice of one request draws from a stream of its own.
        self._random = np.random.default_rng(None if sampling.seed is None else [abs(sampling.seed), index])
        self._counts: Counter[int] = Counter()
        self._biased = np.fromiter(sampling.logit_bias, dtype=np.int64)
        self._biases = np.fromiter(sampling.logit_bias.values(), dtype=np.float32)

    def choose(self, logits: Logits) -> int:
        """The next token, always one of the vocabulary. *logits* (vocabulary,) are changed. Raises ``NoTokenLeft``."""
        s = self._sampling
        if len(self._biased):
            logits[self._biased] += self._biases
        if s.presence_penalty or s.frequency_penalty:
            for token, count in self._counts.items():
                logits[token] -= s.presence_penalty + s.frequency_penalty * count
        # One number that is none would make every probability none.
        if not np.isfinite(logits.max()):
            raise NoTokenLeft("its logits hold no finite maximum")
        token = int(logits.argmax()) if s.temperature == 0 else self._draw(logits)
        self._counts[token] += 1
        return token

    def _draw(self, logits: Logits) -> int:
        s = self._sampling
        scaled = (logits - logits.max()) / max(s.temperature, 1e-4)
        if 0 < s.top_k < len(scaled):
            scaled[scaled < np.partition(scaled, -s.top_k)[-s.top_k]] = -np.inf
        probabilities = np.exp(scaled.astype(np.float64))
        probabilities /= probabilities.sum()
        if s.min_p > 0:
            probabilities[probabilities < s.min_p * probabilities.max()] = 0
        if s.top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            # The smallest set that reaches top_p; the likeliest token is always in it.
            probabilities[order[1:][before[1:] >= s.top_p]] = 0
        cumulative = np.cumsum(probabilities)
        return int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))


def logprobs_of(logits: Logits, token: int, num_top: int) -> TokenLogprobs:
    """The log probability of *token* and of the *num_top* likeliest."""
    shifted = logits.astype(np.float64) - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    top = np.argsort(-logprobs, kind="stable")[:num_top]
    return TokenLogprobs(token, float(logprobs[token]), tuple((int(t), float(logprobs[t])) for t in top))
