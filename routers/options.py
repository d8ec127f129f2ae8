"""Settings of the skill router: its defaults, and what a strategy may change (``router_options``). Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean, nearest

_CHOICES = {"scoring": ("shrunk", "symbolic"), "annotator": ("embedding", "llm")}


@dataclass(frozen=True, slots=True)
class SkillsOptions:
    """How queries are annotated and experts scored."""

    annotator: str = "embedding"
    """``embedding`` (nearest labelled questions) or ``llm`` (the paper's keyword model: an expert names the skills)."""
    keyword_expert: str | None = None
    """Which registered expert names the skills; needed by ``llm``."""
    scoring: str = "shrunk"
    """``shrunk`` (accuracies with pseudo-counts) or ``symbolic`` (the paper's sums of ±1)."""
    floor: float = 0.33
    """Similarity below which a query is like nothing known. On the zoo it turns away about 1 % of the queries that belong and
    lets in 5 % of those that do not (docs/adr/0004-routing.md has the table)."""
    temperature: float = 0.02
    """Of the skills' shares: a skill that is this much less similar gets 1/e of the weight. Chosen by the likelihood of the
    right skill."""
    global_weight: float = 0.01
    """Exponent of an expert's overall strength in ``shrunk``: enough to decide between equals, too little to outweigh the
    query's skills."""
    prior_strength: float = 1.0
    """Answers that an expert's overall accuracy is worth on a skill where it was not measured."""
    declared_strength: float = 2.0
    """Correct answers that declaring a skill is worth; measured answers outweigh them soon."""
    sticky: bool = False
    """Whether an unclear query (a fragment without its context, or below the floor) stays with its session's expert
    (``x-session-id``)."""


def parse_options(values: Mapping[str, Any], defaults: SkillsOptions) -> SkillsOptions:
    """*defaults* with *values* over them. Raises ``InvalidRequest`` naming the field and the nearest valid value."""
    known = {field.name: field for field in dataclasses.fields(SkillsOptions)}
    check_known(values, known, router="skills")
    for name, value in values.items():
        _check(name, value)
    options = dataclasses.replace(defaults, **values)
    if options.annotator == "llm" and not options.keyword_expert:
        raise _invalid("keyword_expert", "must name a registered expert when the annotator is 'llm'")
    return options


def check_known(values: Mapping[str, Any], known: Collection[str], *, router: str) -> None:
    """Raise ``InvalidRequest`` for the first of *values* that *router* does not know."""
    for name in values:
        if name not in known:
            hint = did_you_mean(name, tuple(known), always_list=True) if known else "it has none"
            raise _invalid(name, f"is no option of the router {router!r}; {hint}")


def _check(name: str, value: Any) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            near = nearest(str(value), _CHOICES[name])
            hint = f"; did you mean {near!r}?" if near else ""
            raise _invalid(name, f"is {value!r}, it must be one of {', '.join(_CHOICES[name])}{hint}")
    elif name == "sticky":
        if not isinstance(value, bool):
            raise _invalid(name, f"is {value!r}, it must be true or false")
    elif name == "keyword_expert":
        if value is not None and not isinstance(value, str):
            raise _invalid(name, f"is {value!r}, it must be an expert's id")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(name, f"is {value!r}, it must be a number")
    elif name == "floor":
        if not -1 <= value <= 1:
            raise _invalid(name, f"is {value:g}, it must be between -1 and 1")
    elif value < 0 or (name == "temperature" and value == 0):
        raise _invalid(name, f"is {value:g}, it must be {'above 0' if name == 'temperature' else '0 or more'}")


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
