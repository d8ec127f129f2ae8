"""Train the whole zoo: ``python -m zoo.training.all``, about two hours on two cores.

Two lanes of one core each; then the trained experts answer training questions, from which the aggregator and the judge learn.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

LANES = (
    ("generalist", "sequences", "comparison", "text", "logic", "planner"),
    ("numerals", "arithmetic", "calendar", "units", "facts"),
)
"""An adapter stands behind the model that it sits on."""


def _run(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments])  # noqa: S603 - our own modules


def main() -> None:
    lanes = [_run("zoo.training.train", *lane) for lane in LANES]
    stages: list[Callable[[], subprocess.Popen[bytes]]] = [
        lambda: lanes[0],
        lambda: lanes[1],
        lambda: _run("zoo.training.candidates"),
        lambda: _run("zoo.training.train", "aggregator", "judge"),
    ]
    for stage in stages:
        if code := stage().wait():
            for lane in lanes:
                lane.terminate()
            sys.exit(code)


if __name__ == "__main__":
    main()
