"""What each expert of the zoo is trained on, how large it is and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from zoo.questions import GENERATORS, multistep
from zoo.questions.base import Question, Split
from zoo.training.data import Draw


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run. ``minutes`` is processor time on one core; ``rows`` packed rows of ``row_length`` tokens a step."""

    draw: Callable[[Split], Draw]
    minutes: float
    hidden_size: int = 128
    num_layers: int = 4
    max_length: int = 512
    rows: int = 25
    row_length: int = 160
    base: str | None = None
    lora_rank: int = 0
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    seed: int = 1


def _domain(name: str) -> Callable[[Split], Draw]:
    generator = GENERATORS[name]
    return lambda split: lambda rng: generator(rng, split)


def _everything(split: Split) -> Draw:
    generators = tuple(GENERATORS.values())

    def draw(rng: Random) -> Question:
        return rng.choice(generators)(rng, split)

    return draw


def _aggregation(split: Split) -> Draw:
    from zoo.training.aggregation import draw_aggregation  # needs answers that the other experts must give first

    return draw_aggregation(split)


def _judging(split: Split) -> Draw:
    from zoo.training.judging import draw_judging  # likewise

    return draw_judging(split)


def _planning(split: Split) -> Draw:
    return lambda rng: multistep.planning(rng, split)


RECIPES: dict[str, Recipe] = {
    "arithmetic": Recipe(_domain("arithmetic"), minutes=11),
    "numerals": Recipe(_domain("numerals"), minutes=10),
    "text": Recipe(_domain("text"), minutes=10),
    "calendar": Recipe(_domain("calendar"), minutes=10),
    "units": Recipe(_domain("units"), minutes=10),
    "facts": Recipe(_domain("facts"), minutes=10),
    "logic": Recipe(_domain("logic"), minutes=6),
    "generalist": Recipe(_everything, minutes=24, hidden_size=192),
    "sequences": Recipe(_domain("sequences"), minutes=10, base="generalist", lora_rank=32, muon_lr=0.01, adamw_lr=1e-3),
    "comparison": Recipe(_domain("comparison"), minutes=14, base="generalist", lora_rank=32, muon_lr=0.01, adamw_lr=1e-3),
    "aggregator": Recipe(_aggregation, minutes=32, base="generalist", rows=14, row_length=288, muon_lr=0.015, adamw_lr=2e-3),
    "judge": Recipe(_judging, minutes=12, base="generalist", lora_rank=16, muon_lr=0.01, adamw_lr=1e-3),
    "planner": Recipe(_planning, minutes=12, rows=17, row_length=240),
}
