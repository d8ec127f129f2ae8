"""From questions to packed training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from zoo.questions.base import Question
from zoo.training.tokenizer import ASSISTANT, END, USER

Draw = Callable[[Random], Question]


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows: *ids* and *targets* (batch, length); a target of -100 carries no loss; *mask* is additive."""

    ids: Tensor
    targets: Tensor
    mask: Tensor


def prompt_of(question: Question) -> str:
    """The rendered chat up to where the assistant begins; equals what the chat template gives."""
    turns = "".join(f"{USER}{said}{ASSISTANT}{answer}{END}" for said, answer in question.history)
    return f"{turns}{USER}{question.text}{ASSISTANT}"


class Packer:
    """Endless batches of whole examples, several to a row, each blind to its neighbours."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, draw: Draw, rng: Random, *, rows: int, length: int) -> None:
        self._tokenizer, self._draw, self._rng = tokenizer, draw, rng
        self._rows, self._length = rows, length
        self._pad = tokenizer.pad_token_id

    def _examples(self, count: int) -> list[tuple[list[int], list[int]]]:
        questions = [self._draw(self._rng) for _ in range(count)]
        prompts = self._tokenizer([prompt_of(q) for q in questions])["input_ids"]
        answers = self._tokenizer([q.completion + END for q in questions])["input_ids"]
        fitting = [(p, a) for p, a in zip(prompts, answers, strict=True) if len(p) + len(a) <= self._length]
        return sorted(fitting, key=lambda pair: -len(pair[0]) - len(pair[1]))

    def __iter__(self) -> Iterator[Batch]:
        # First fit, longest first, over a pool of some batches; rows that stay open are filled up from the next pool.
        pool = self._rows * 24
        while True:
            rows: list[list[tuple[list[int], list[int]]]] = []
            space: list[int] = []
            for prompt, answer in self._examples(pool):
                size = len(prompt) + len(answer)
                for i, free in enumerate(space):
                    if free >= size:
                        rows[i].append((prompt, answer))
                        space[i] -= size
                        break
                else:
                    rows.append([(prompt, answer)])
                    space.append(self._length - size)
            self._rng.shuffle(rows)
            for start in range(0, len(rows) - self._rows + 1, self._rows):
                yield self._pack(rows[start : start + self._rows])

    def _pack(self, rows: list[list[tuple[list[int], list[int]]]]) -> Batch:
        ids = torch.full((self._rows, self._length), self._pad)
        targets = torch.full((self._rows, self._length), -100)
        owner = torch.zeros((self._rows, self._length), dtype=torch.long)
        for i, row in enumerate(rows):
            at = 0
            for number, (prompt, answer) in enumerate(row, 1):
                end = at + len(prompt) + len(answer)
                ids[i, at:end] = torch.tensor(prompt + answer)
                # The token before an answer token predicts it.
                targets[i, at + len(prompt) - 1 : end - 1] = torch.tensor(answer)
                owner[i, at:end] = number
                at = end
        same = owner[:, :, None] == owner[:, None, :]
        causal = torch.ones(self._length, self._length, dtype=torch.bool).tril()
        mask = torch.zeros(same.shape, dtype=torch.bfloat16).masked_fill_(~(same & causal), float("-inf"))
        return Batch(ids, targets, mask[:, None])
