"""A plan that an expert writes: typed steps, read from what it said, checked against who is there, and put in an order. Pure.

Two spellings are read: a JSON object ``{"steps": [{"id": "1", "expert": "…", "input": "…", "after": ["…"]}]}``, or, of experts too small
for JSON, a step a line, ``expert: input``. In an input ``{1}`` stands for the answer of the step with that id, and ``{question}`` for what
the user asked, so that a question of one part is passed on as it stands. Nothing of a plan is ever executed as code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from domain.nearest import did_you_mean
from domain.quoting import quoted, shortened
from orchestrator.aggregation.material import read_json, shown_text

QUESTION = "question"
"""The reference to what the user asked; no step may have this id."""
MAX_INPUT_CHARS = 8_000
"""Letters of one step's input, before answers are filled in."""
MAX_REFERENCES = 32
"""References in one step's input, of which one to the question: each may stand for a long text."""
_REFERENCE = re.compile(r"\{\s*(\w{1,32})\s*\}")
_JUST_THE_QUESTION = re.compile(rf"\{{\s*{QUESTION}\s*\}}[.?!]?")
_LINE = re.compile(r"^\s*(?:\d+[.)]\s*)?(?P<expert>[a-z0-9][a-z0-9._-]*)\s*:\s*(?P<input>\S.*)$")


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One call of a plan."""

    id: str
    expert: str
    input: str
    after: frozenset[str]
    """Ids of the steps whose answers it needs, those that its input refers to among them."""

    @property
    def is_question(self) -> bool:
        """Whether it is asked just what the user asked."""
        return _JUST_THE_QUESTION.fullmatch(self.input) is not None

    def filled(self, answers: Mapping[str, str], question: str) -> str:
        """Its input with what earlier steps have answered, and what the user asked."""
        known = {**answers, QUESTION: question}
        return _REFERENCE.sub(lambda match: known.get(match[1], match[0]), self.input)


def read_plan(text: str, experts: Collection[str], *, max_steps: int) -> tuple[tuple[PlanStep, ...], list[str]]:
    """The steps of a plan, in an order in which each comes after those that it needs; or what is wrong with it, for whoever wrote it."""
    raw = _raw_steps(shown_text(text))
    if raw is None:
        return (), ["there is no plan: neither a JSON object with `steps`, nor lines of the form `expert: input`"]
    if len(raw) > max_steps:
        return (), [f"it has {len(raw)} steps, {max_steps} at most are possible"]
    problems: list[str] = []
    steps: dict[str, PlanStep] = {}
    for number, given in enumerate(raw, 1):
        step = _typed(given, number, experts, problems)
        if step is None:
            continue
        if step.id in steps:
            problems.append(f"two steps have the id {quoted(step.id)}")
        steps[step.id] = step
    for step in steps.values():
        problems += [f"step {quoted(step.id)} needs {quoted(other)}, which is no step" for other in sorted(step.after - steps.keys())]
    if problems or not steps:
        return (), problems or ["it has no steps"]
    ordered = _ordered(steps)
    if len(ordered) < len(steps):
        stuck = ", ".join(sorted(steps.keys() - {step.id for step in ordered}))
        return (), [f"steps {stuck} wait for one another"]
    return tuple(ordered), []


def _raw_steps(text: str) -> list[Any] | None:
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            found = read_json(text[start : end + 1])
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found["steps"] if isinstance(found.get("steps"), list) else None
    lines = [match for line in text.splitlines() if (match := _LINE.match(line))]
    return [{"expert": match["expert"], "input": match["input"].strip()} for match in lines] or None


def _typed(given: Any, number: int, experts: Collection[str], problems: list[str]) -> PlanStep | None:
    if not isinstance(given, dict):
        problems.append(f"step {number} is no object")
        return None
    step_id, expert, text, after = given.get("id", number), given.get("expert"), given.get("input"), given.get("after", [])
    if not isinstance(step_id, str | int) or not str(step_id) or step_id == QUESTION:
        problems.append(f"step {number}: `id` must be a short text, and not {quoted(QUESTION)}")
    if not isinstance(expert, str) or expert not in experts:
        hint = did_you_mean(str(expert), tuple(experts), always_list=True)
        problems.append(f"step {number}: there is no expert {quoted(shortened(str(expert), 64))}; {hint}")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_INPUT_CHARS:
        problems.append(f"step {number}: `input` must be a text of 1 to {MAX_INPUT_CHARS} letters")
    references = _REFERENCE.findall(text) if isinstance(text, str) else []
    if len(references) > MAX_REFERENCES or references.count(QUESTION) > 1:
        problems.append(f"step {number}: `input` may refer to the question once, and have at most {MAX_REFERENCES} references")
    if not isinstance(after, list) or not all(isinstance(other, str | int) for other in after):
        problems.append(f"step {number}: `after` must be a list of step ids")
    if problems or not isinstance(text, str) or not isinstance(expert, str):
        return None
    named = {str(other) for other in after} | set(references) - {QUESTION}
    return PlanStep(str(step_id), expert, text.strip(), frozenset(named))


def _ordered(steps: Mapping[str, PlanStep]) -> list[PlanStep]:
    """Those that can be carried out, in order; fewer than *steps* where some wait for one another."""
    done: list[PlanStep] = []
    known: set[str] = set()
    while ready := [step for step in steps.values() if step.id not in known and step.after <= known]:
        done += ready
        known |= {step.id for step in ready}
    return done
