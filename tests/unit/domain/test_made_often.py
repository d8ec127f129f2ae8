"""Values that are made often are in every way the dataclasses that they were, but for who guards them."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest
from pydantic import TypeAdapter

from domain.made_often import made_often
from domain.trace import Timings, Trace


@dataclass(frozen=True, slots=True)
class Guarded:
    """As the language has it."""

    name: str
    many: list[int] = field(default_factory=list, compare=False)
    size: tuple[int, ...] = (1,)
    last: bool = field(default=False, kw_only=True)


@made_often
@dataclass(frozen=True, slots=True)
class Quick:
    """The same."""

    name: str
    many: list[int] = field(default_factory=list, compare=False)
    size: tuple[int, ...] = (1,)
    last: bool = field(default=False, kw_only=True)


def test_it_is_made_as_the_guarded_one_is() -> None:
    quick, guarded = inspect.signature(Quick), inspect.signature(Guarded)

    assert [(p.name, p.kind) for p in quick.parameters.values()] == [(p.name, p.kind) for p in guarded.parameters.values()]
    assert Quick("a").many is not Quick("a").many
    assert (Quick("a").many, Quick("a").size, Quick("a").last) == ([], (1,), False)
    for wrong in ((), ("a", [], (), True)):
        with pytest.raises(TypeError):
            Quick(*wrong)  # type: ignore[arg-type]


def test_it_compares_copies_and_hashes_as_before() -> None:
    one = Quick("a", [1], last=True)

    assert one == Quick("a", [2], last=True) != Quick("b", [1], last=True)
    assert hash(one) == hash(Quick("a", [2], last=True))
    assert replace(one, name="b") == Quick("b", last=True)
    assert pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == repr(Guarded("a", [1], last=True)).replace("Guarded", "Quick")
    assert [part.name for part in fields(one)] == ["name", "many", "size", "last"]
    assert not hasattr(one, "__dict__")
    assert TypeAdapter(Quick).validate_python({"name": "a", "last": True}) == Quick("a", last=True)


def test_who_guards_it_is_the_type_checker() -> None:
    """The comments are the test: mypy would tell of one that is not needed."""
    with pytest.raises(FrozenInstanceError):
        Guarded("a").name = "b"  # type: ignore[misc]
    Quick("a").name = "b"  # type: ignore[misc]
    Timings().total = 1.0  # type: ignore[misc]


def test_traces_are_of_this_kind() -> None:
    trace = Trace("r", "m", None, 0.0, "ok")

    assert replace(trace, status="error") != trace
    assert replace(trace, status="error").id == trace.id
    assert Trace("r", "m", None, 0.0, "ok").id != trace.id


def test_a_class_that_does_more_when_it_is_made_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        name: str

        def __post_init__(self) -> None:
            raise ValueError

    @dataclass(frozen=True, slots=True)
    class Derived:
        name: str = field(init=False, default="a")

    for cls in (Checked, Derived):
        with pytest.raises(TypeError, match=cls.__name__):
            made_often(cls)
