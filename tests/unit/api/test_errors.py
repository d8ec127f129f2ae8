"""The error tree as HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.errors import STATUS, status_of, to_wire
from domain import errors


def tree(cls: type[errors.ConsiliumError] = errors.ConsiliumError) -> Iterator[type[errors.ConsiliumError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from tree(sub)


@pytest.mark.parametrize("cls", sorted({c for c in tree() if c.__module__ == "domain.errors"}, key=lambda c: c.__name__))
def test_every_class_has_a_status(cls: type[errors.ConsiliumError]) -> None:
    """Each class of the tree stands in the table itself."""
    assert cls in STATUS
    assert 400 <= STATUS[cls] <= 599


def test_a_new_class_takes_its_ancestors_status() -> None:
    """A class that the table does not know is answered as its nearest ancestor."""

    class NoSuchShelf(errors.ModelNotFound):
        pass

    assert status_of(NoSuchShelf("gone")) == 404


def test_callers_errors_are_4xx_and_ours_5xx() -> None:
    """Only a full queue, which is worth a retry, is a 4xx of ours."""
    for cls in tree(errors.RequestError):
        assert 400 <= status_of(cls("x")) < 500
    ours = [errors.DeadlineExceeded("x"), errors.NotReady("x"), errors.StorageError("x"), errors.NoEligibleExpert("x")]
    assert all(status_of(error) >= 500 for error in [*ours, errors.AllExpertsFailed([])])
    assert status_of(errors.Overloaded("x")) == 429


def test_shape() -> None:
    """message, type, param and code, as OpenAI has them."""
    wire = to_wire(errors.InvalidRequest("k must be at least 1", param="consilium.k"))

    assert wire.status == 400
    assert wire.body == {
        "error": {
            "message": "k must be at least 1",
            "type": "invalid_request_error",
            "param": "consilium.k",
            "code": "invalid_request",
        }
    }


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.2, "1"), (1.0, "1"), (7.4, "8")])
def test_retry_after_is_whole_seconds(retry_after_s: float, header: str) -> None:
    """``Retry-After`` is rounded up to whole seconds, at least one."""
    response = to_wire(errors.Overloaded("full", retry_after_s=retry_after_s)).response()

    assert response.headers["retry-after"] == header


def test_unauthenticated_names_the_scheme() -> None:
    """A 401 says how to authenticate."""
    assert to_wire(errors.Unauthenticated("no key")).response().headers["www-authenticate"] == "Bearer"


def test_no_eligible_expert_gives_reasons() -> None:
    """Each filtered expert stands with its reason."""
    wire = to_wire(errors.NoEligibleExpert("nobody", reasons={"a": "disabled"}))

    assert wire.body["error"]["experts"] == [{"expert": "a", "message": "disabled"}]


def test_what_is_not_ours_is_not_told() -> None:
    """The text of an unexpected exception stays inside."""
    wire = to_wire(KeyError("password"))

    assert wire.status == 500
    assert "password" not in wire.body["error"]["message"]
