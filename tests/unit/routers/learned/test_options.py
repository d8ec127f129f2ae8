"""Options of learned routers: what is refused, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from domain.errors import InvalidRequest
from routers.learned.catalogue import check_options


@pytest.mark.parametrize(
    ("router", "options", "told"),
    [
        ("neighbours", {"kernal": "linear"}, r"'kernal' is no option of the router 'neighbours'; did you mean 'kernel'"),
        ("neighbours", {"kernel": "gausian"}, r"'kernel' is 'gausian'; did you mean 'gaussian'\? Known are gaussian, linear, uniform"),
        ("neighbours", {"kernel": 3}, "'kernel' is 3"),
        ("neighbours", {"k": 0}, "'k' is 0, it must be between 1 and 1000"),
        ("neighbours", {"k": 2.5}, "'k' is 2.5, it must be a whole number"),
        ("neighbours", {"k": True}, "'k' is True, it must be a whole number"),
        ("neighbours", {"width": 0}, "'width' is 0, it must be above 0 and at most 2"),
        ("neighbours", {"width": float("nan")}, "'width' is nan, it must be a number"),
        ("ridge", {"forgetting": 0.9}, "'forgetting' is 0.9, it must be a list of 1 to 64 values"),
        ("ridge", {"forgetting": []}, "it must be a list of 1 to 64 values"),
        ("ridge", {"forgetting": [0.5, 2]}, "'forgetting' is 2, it must be above 0 and at most 1"),
        ("ridge", {"random_features": None}, "'random_features' is None, it must be a whole number"),
        ("ridge", {"random_features": 4097}, "it must be between 0 and 4096"),
        ("ridge", {"random_features": 2049, "forgetting": [1, 0.9]}, "is 2049 for 2 heads .* multiplied are at most 4096"),
        ("category", {"budget_b": 0}, "'budget_b' is 0, it must be above 0"),
        ("category", {"parameters_b": {"a": -1}}, "'parameters_b' of 'a' is -1, it must be 0 or more"),
        ("category", {"parameters_b": [1]}, "it must be an object of expert ids and values"),
        ("category", {"generalist": 7}, "'generalist' is 7, it must be an expert's id"),
        ("random", {"seed": 1}, "'seed' is no option of the router 'random'; it has none"),
    ],
)
def test_what_is_wrong_is_told(router: str, options: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as refused:
        check_options(router, options)

    assert refused.value.param == f"router_options.{next(iter(options))}"


def test_what_is_right_is_taken() -> None:
    check_options("neighbours", {"k": 20, "kernel": None, "width": 1})
    check_options("ridge", {"forgetting": [1, 0.9], "penalty": None})
    check_options("ridge", {"random_features": 2048, "forgetting": [1, 0.9]})
    check_options("category", {"parameters_b": {"a": 7, "b": 0.5}, "budget_b": 8, "servers": {"a": "b"}})
