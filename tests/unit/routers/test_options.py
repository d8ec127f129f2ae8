"""What a strategy may set for the skill router."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import InvalidRequest
from routers.options import SkillsOptions, expert_list, parse_options


def test_values_stand_over_the_defaults() -> None:
    options = parse_options({"floor": 0.5, "scoring": "symbolic"}, SkillsOptions(temperature=0.1))

    assert (options.floor, options.scoring, options.temperature) == (0.5, "symbolic", 0.1)


def test_an_unknown_option_names_the_nearest_known_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'floor'") as caught:
        parse_options({"flor": 0.5}, SkillsOptions())

    assert caught.value.param == "router_options.flor"


@pytest.mark.parametrize("name", ["scoring", "floor", "sticky", "keyword_expert"])
def test_a_value_of_any_size_is_told_in_short(name: str) -> None:
    """Messages stand in answers, in logs and in traces."""
    with pytest.raises(InvalidRequest) as caught:
        parse_options({name: ["x" * 100_000] * 3}, SkillsOptions())
    with pytest.raises(InvalidRequest) as listed:
        expert_list({"x": "y" * 100_000})

    assert len(caught.value.message) < 200
    assert len(listed.value.message) < 200


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scoring": "symbolc"}, "did you mean 'symbolic'"),
        ({"annotator": "oracle"}, "one of embedding, llm"),
        ({"floor": "high"}, "must be a number"),
        ({"floor": True}, "must be a number"),
        ({"floor": 2}, "between -1 and 1"),
        ({"temperature": 0}, "above 0"),
        ({"global_weight": -1}, "0 or more"),
        ({"sticky": "yes"}, "true or false"),
        ({"keyword_expert": 3}, "expert's id"),
        ({"annotator": "llm"}, "must name a registered expert"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_right(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_options(values, SkillsOptions())
