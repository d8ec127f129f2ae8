"""Settings of the skill router: its defaults, and what a strategy may change (``router_options``). Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean, nearest
from domain.quoting import quoted

_CHOICES = {"scoring": ("shrunk", "symbolic"), "annotator": ("embedding", "llm", "menu")}
_OF_MENU = ("annotator", "keyword_expert")
"""Options that the router ``menu`` lacks: it is the skill router with this annotator."""


@dataclass(frozen=True, slots=True)
class SkillsOptions:
    """How queries are annotated and experts scored."""

    annotator: str = "embedding"
    """``embedding`` (nearest labelled questions), ``llm`` (the paper's keyword model: an expert names the skills) or ``menu``
    (an expert picks from the known skills)."""
    keyword_expert: str | None = None
    """Which registered expert names the skills; needed by ``llm``."""
    menu_expert: str | None = None
    """Which registered expert picks from the known skills; needed by ``menu``."""
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
    feedback_weight: float = 1.0
    """What one answer that users have judged is worth beside one that was measured; 0 leaves feedback out."""
    explore: float = 0.05
    """Share of the queries that an expert is given all the same which by its measurements would be first and has got worse: without
    them nobody would notice that it was mended. In [0, 1]."""
    sticky: bool = False
    """Whether an unclear query (a fragment without its context, or below the floor) stays with its session's expert
    (``x-session-id``)."""


def parse_options(values: Mapping[str, Any], defaults: SkillsOptions, *, router: str = "skills") -> SkillsOptions:
    """*defaults* with *values* over them. Raises ``InvalidRequest`` naming the field and the nearest valid value."""
    if not values and defaults.annotator == "embedding":  # nearly always, and valid as they are
        return defaults
    known = [field.name for field in dataclasses.fields(SkillsOptions) if router != "menu" or field.name not in _OF_MENU]
    check_known(values, known, router=router)
    for name, value in values.items():
        _check(name, value)
    options = dataclasses.replace(defaults, **values)
    if options.annotator == "llm" and not options.keyword_expert:
        raise _invalid("keyword_expert", "must name a registered expert when the annotator is 'llm'")
    if options.annotator == "menu" and not options.menu_expert:
        raise _invalid("menu_expert", "must name the registered expert that picks from the menu of skills")
    return options


def check_known(values: Mapping[str, Any], known: Collection[str], *, router: str) -> None:
    """Raise ``InvalidRequest`` for the first of *values* that *router* does not know."""
    for name in values:
        if name not in known:
            hint = did_you_mean(name, tuple(known), always_list=True) if known else "it has none"
            raise _invalid(name, f"is no option of the router {router!r}; {hint}")


def expert_list(value: object) -> list[str]:
    """The option ``experts``. Raises ``InvalidRequest`` for what is no list of ids; whether they exist is checked elsewhere."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise _invalid("experts", f"is {quoted(value)}, it must be a list of expert ids")
    return list(value)


def _check(name: str, value: Any) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            near = nearest(str(value), _CHOICES[name])
            hint = f"; did you mean {near!r}?" if near else ""
            raise _invalid(name, f"is {quoted(value)}, it must be one of {', '.join(_CHOICES[name])}{hint}")
    elif name == "sticky":
        if not isinstance(value, bool):
            raise _invalid(name, f"is {quoted(value)}, it must be true or false")
    elif name in {"keyword_expert", "menu_expert"}:
        if value is not None and not isinstance(value, str):
            raise _invalid(name, f"is {quoted(value)}, it must be an expert's id")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(name, f"is {quoted(value)}, it must be a number")
    elif name == "floor":
        if not -1 <= value <= 1:
            raise _invalid(name, f"is {value:g}, it must be between -1 and 1")
    elif name == "explore" and not 0 <= value <= 1:
        raise _invalid(name, f"is {value:g}, it must be between 0 and 1")
    elif value < 0 or (name == "temperature" and value == 0):
        raise _invalid(name, f"is {value:g}, it must be {'above 0' if name == 'temperature' else '0 or more'}")


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
