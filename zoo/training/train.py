"""Train one expert of the zoo: ``python -m zoo.training.train numerals``.

The budget is processor time on one core; the learning rate follows a cosine over it, so a shorter run is a finished
run too. Weights go to ``zoo/weights/<expert>``, the log of losses and held-out accuracy to standard output.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F

from zoo.training import package
from zoo.training.data import Packer
from zoo.training.evaluate import accuracy
from zoo.training.model import Decoder, initialise, llama_config, rotary_tables
from zoo.training.optimizer import build_optimizers
from zoo.training.recipes import RECIPES, Recipe
from zoo.training.tokenizer import build_tokenizer

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def _decoder(recipe: Recipe, weights: Path) -> Decoder:
    tokenizer = build_tokenizer(recipe.max_length)
    if recipe.base:
        model = package.load_float32(weights / recipe.base)
        model.config.max_position_embeddings = recipe.max_length
    else:
        config = llama_config(
            hidden_size=recipe.hidden_size,
            num_layers=recipe.num_layers,
            max_length=recipe.max_length,
            pad_id=tokenizer.pad_token_id,
            end_id=tokenizer.eos_token_id,
        )
        model = package.empty_model(config)
        initialise(model)
    return Decoder(model, lora_rank=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank)


def train(name: str, *, weights: Path = WEIGHTS, minutes: float | None = None, compiled: bool = True) -> float:
    """Train expert *name* and write its weights; returns its accuracy on held-out (validation) questions."""
    recipe = RECIPES[name]
    budget = 60 * (recipe.minutes if minutes is None else minutes)
    torch.manual_seed(recipe.seed)
    decoder = _decoder(recipe, weights)
    tokenizer = build_tokenizer(recipe.max_length)
    packer = Packer(tokenizer, recipe.draw("train"), Random(recipe.seed), rows=recipe.rows, length=recipe.row_length)
    optimizers = build_optimizers(decoder, muon_lr=recipe.muon_lr, adamw_lr=recipe.adamw_lr)
    peak = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    forward = torch.compile(decoder, dynamic=False) if compiled else decoder
    cos, sin = rotary_tables(recipe.row_length)

    started, recent = time.process_time(), 0.0
    for step, batch in enumerate(packer, 1):
        if step == 2:  # the first step compiles; it is not part of the budget
            started = time.process_time()
        progress = (time.process_time() - started) / budget if step > 1 else 0.0
        if progress >= 1:
            break
        rate = min(1.0, step / 80) * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
        for optimizer, rates in zip(optimizers, peak, strict=True):
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * rate
        kept = batch.targets != -100
        logits = decoder.logits(forward(batch.ids, cos, sin, batch.mask)[kept])
        loss = F.cross_entropy(logits, batch.targets[kept])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 200 == 0:
            print(f"{name} step {step} loss {recent:.4f} progress {progress:.0%}", flush=True)

    package.save(decoder, tokenizer, weights / name, base=recipe.base if recipe.lora_rank else None)
    score = accuracy(decoder, tokenizer, recipe.draw("validation"), num_questions=400)
    print(f"{name} finished after {step} steps: {score:.1%} of 400 held-out questions", flush=True)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experts", nargs="+", choices=sorted(RECIPES), metavar="EXPERT", help=", ".join(RECIPES))
    parser.add_argument("--minutes", type=float, help="training time per expert instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process (default 1)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of all experts' weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.experts:
        train(name, weights=arguments.weights, minutes=arguments.minutes)


if __name__ == "__main__":
    main()
