"""One step of the embedded decoder against transformers' own classes, on a model of the zoo: ``python benchmarks/embedded_step.py``.

A step gives every sequence of a batch its next token. One thread, float32, prompts of 40 tokens of equal length, which is the
library's best case: sequences of different lengths it would pad.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM

from workers.embedded.decoder import Decoder
from workers.embedded.folder import ExpertFolder
from workers.embedded.shape import load_shape
from workers.embedded.weights import load_weights
from zoo.release import WEIGHTS

BATCHES = (1, 8, 32)
PROMPT_TOKENS, STEPS, WARM_UP = 40, 60, 10


def prompts_for(num: int) -> list[list[int]]:
    return [[(row * 7 + column) % 250 for column in range(PROMPT_TOKENS)] for row in range(num)]


def steps_of_decoder(decoder: Decoder, num: int) -> Iterator[float]:
    """Milliseconds of each step."""
    cache, position = decoder.new_cache(), PROMPT_TOKENS
    cache.reserve(num, position + 1)
    logits = decoder.prefill(cache, 0, prompts_for(num))
    while True:
        tokens = logits.argmax(-1).tolist()
        began = perf_counter()
        cache.reserve(num, position + 1)
        logits = decoder.step(cache, tokens, [position] * num)
        yield (perf_counter() - began) * 1e3
        position += 1


def steps_of_library(model: LlamaForCausalLM, num: int) -> Iterator[float]:
    """Milliseconds of each step."""
    seen = torch.ones(num, PROMPT_TOKENS, dtype=torch.long)
    output = model(torch.tensor(prompts_for(num)), attention_mask=seen, use_cache=True)
    while True:
        tokens = output.logits[:, -1].argmax(-1, keepdim=True)
        began = perf_counter()
        seen = torch.cat([seen, torch.ones(num, 1, dtype=torch.long)], dim=1)
        output = model(tokens, attention_mask=seen, past_key_values=output.past_key_values, use_cache=True)
        yield (perf_counter() - began) * 1e3


def main() -> None:
    """Print a row per batch size: milliseconds a step, median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="generalist", help="a folder of zoo/weights")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = ExpertFolder(WEIGHTS / asked.model)
    decoder = Decoder(load_shape(folder.base), load_weights(folder), torch.float32)
    model = LlamaForCausalLM.from_pretrained(folder.base, dtype=torch.float32).eval()
    table = Table("sequences", "decoder ms", "transformers ms", "ratio", title=f"One step of {asked.model}")
    with torch.inference_mode():
        for num in BATCHES:
            own, library = list[float](), list[float]()
            for _ in range(asked.rounds):  # in turns, so that a busy machine slows both
                own += islice(steps_of_decoder(decoder, num), WARM_UP, WARM_UP + STEPS)
                library += islice(steps_of_library(model, num), WARM_UP, WARM_UP + STEPS)
            table.add_row(str(num), f"{median(own):.2f}", f"{median(library):.2f}", f"{median(own) / median(library):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
