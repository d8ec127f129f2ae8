"""What the database library raises, in words for whoever runs the service."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy.exc as sa_exc

from domain.errors import Conflict, ConsiliumError, InvalidRequest, NotReady, StorageError
from experts_registry.storage_errors import translate, translated


class FromSqlite(sqlite3.OperationalError):
    def __init__(self, name: str, message: str = "x") -> None:
        super().__init__(message)
        self.sqlite_errorname = name


class FromPostgres(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("details that nobody should see:\nSELECT secret")
        self.sqlstate = sqlstate


def _translated(error: Exception, kind: type[sa_exc.DBAPIError] = sa_exc.OperationalError) -> ConsiliumError:
    return translate(kind("SELECT secret", {"key": "hunter2"}, error), "the database")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FromSqlite("SQLITE_FULL"), "disk is full"),
        (FromSqlite("SQLITE_BUSY"), "locked by another process"),
        (FromSqlite("SQLITE_BUSY_SNAPSHOT"), "locked by another process"),
        (FromSqlite("SQLITE_LOCKED_SHAREDCACHE"), "locked by another process"),
        (FromSqlite("SQLITE_READONLY_DBMOVED"), "may only be read"),
        (FromSqlite("SQLITE_IOERR_WRITE"), "check the disk"),
        (FromSqlite("SQLITE_CORRUPT"), "restore it from a backup"),
        (FromPostgres("53100"), "disk is full"),
        (FromPostgres("55P03"), "locked by another process"),
        (FromPostgres("53300"), "takes no more connections"),
        (FromPostgres("28P01"), "refused the user name or password"),
        (FromPostgres("57P03"), "starting up or shutting down"),
        (FromPostgres("08006"), "cannot be reached"),
        (FromPostgres("XX000"), "details that nobody should see"),
    ],
)
def test_a_database_that_cannot_be_used_says_why(error: Exception, says: str) -> None:
    """And tells neither statements nor values."""
    found = _translated(error)

    assert type(found) is StorageError
    assert found.message.startswith("the database: ")
    assert says in found.message
    assert "hunter2" not in found.message
    assert "SELECT" not in found.message
    assert "details that nobody should see" not in found.public
    assert not found.public.startswith("the database: ")


@pytest.mark.parametrize("error", [FromSqlite("SQLITE_ERROR", "no such table: experts"), FromPostgres("42P01"), FromPostgres("42703")])
def test_a_schema_that_is_not_there_says_to_migrate(error: Exception) -> None:
    found = _translated(error)

    assert type(found) is NotReady
    assert "run `consilium db upgrade`" in found.message
    assert found.message == f"the database: {found.public}"


def test_what_the_caller_can_change_is_the_callers_error() -> None:
    assert type(_translated(FromPostgres("22021"), sa_exc.DBAPIError)) is InvalidRequest
    assert type(_translated(FromPostgres("22001"), sa_exc.DataError)) is InvalidRequest
    assert type(_translated(FromPostgres("23503"), sa_exc.IntegrityError)) is Conflict


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached"),
        (TimeoutError(), "did not answer in time"),
        (sa_exc.TimeoutError(), "every connection stayed in use"),
        (sa_exc.InvalidRequestError("odd"), "odd"),
    ],
)
def test_trouble_on_the_way_to_the_database_is_a_storage_error(error: Exception, says: str) -> None:
    with pytest.raises(StorageError, match=says) as caught, translated("the database"):
        raise error

    assert caught.value.__cause__ is error
    assert "refused" not in caught.value.public
    assert "odd" not in caught.value.public


def test_errors_of_ours_pass_through() -> None:
    with pytest.raises(Conflict, match="taken"), translated("the database"):
        raise Conflict("taken")
