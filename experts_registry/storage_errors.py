"""Whatever the database library raises becomes one of our errors here, with a sentence on what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy.exc as sa_exc

from domain.errors import Conflict, ConsiliumError, InvalidRequest, NotReady, StorageError

MIGRATE = "run `consilium db upgrade`"

_SQLITE_SAYS = {
    "SQLITE_FULL": "the disk is full (database or disk is full): free some space; what was being written is not stored",
    "SQLITE_BUSY": "the database is locked by another process: close what holds it, then try again",
    "SQLITE_LOCKED": "the database is locked by another process: close what holds it, then try again",
    "SQLITE_READONLY": "the database may only be read: make the file and its folder writable",
    "SQLITE_CANTOPEN": "the database file cannot be opened: check that its folder exists and may be written to",
    "SQLITE_PERM": "the database file may not be accessed: check its permissions",
    "SQLITE_IOERR": "reading or writing the database file failed: check the disk",
    "SQLITE_CORRUPT": "the database file is damaged: restore it from a backup",
    "SQLITE_NOTADB": "the file is not an SQLite database: check the path",
}
"""By SQLite's primary result code (https://www.sqlite.org/rescode.html)."""

_POSTGRES_SAYS = {
    "53100": "the database server's disk is full: free some space there; what was being written is not stored",
    "53200": "the database server is out of memory",
    "53300": "the database server takes no more connections: raise its max_connections or run fewer processes",
    "55P03": "the database is locked by another process: a lock did not come free in time; try again",
    "40P01": "two changes blocked each other and this one was undone: try again",
    "40001": "another change came first and this one was undone: try again",
    "57014": "the database took too long and the statement was stopped",
    "3D000": "there is no such database: create it first",
    "25006": "the database may only be read: connect to the primary server",
}
"""By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

_POSTGRES_CLASSES_SAY = {
    "08": "the database cannot be reached",
    "28": "the database refused the user name or password",
    "57": "the database server is starting up or shutting down",
}
"""By the first two characters of SQLSTATE, where the code itself is not in the table above."""


def storage_error(database: str, says: str, details: str = "") -> StorageError:
    """*says* about the database; its name and the *details* are for those who may see them."""
    return StorageError(f"{database}: {says}{details}", public=says)


def not_ready(database: str, says: str) -> NotReady:
    """Like ``storage_error``, of a schema that is not the one that is needed."""
    return NotReady(f"{database}: {says}", public=says)


@contextmanager
def translated(database: str) -> Iterator[None]:
    """Raise what the library raises inside as a domain error that names *database* (without its password)."""
    try:
        yield
    except (sa_exc.SQLAlchemyError, OSError, TimeoutError, UnicodeEncodeError, OverflowError) as error:
        raise translate(error, database) from error


def translate(error: BaseException, database: str) -> ConsiliumError:
    """The domain error that says what *error* means for the one who runs the service."""
    if isinstance(error, UnicodeEncodeError):
        return InvalidRequest("a text holds half a surrogate pair, which is no character: remove it")
    if isinstance(error, OverflowError):  # SQLite's driver says so itself, PostgreSQL's as an error of the statement
        return InvalidRequest("a number is larger than the database can hold")
    if isinstance(error, sa_exc.TimeoutError):
        return storage_error(database, "every connection stayed in use for too long: try again, or allow more connections")
    if isinstance(error, sa_exc.DBAPIError):
        return _translate_driver_error(error, database)
    if isinstance(error, TimeoutError):
        return storage_error(database, "the database did not answer in time")
    if isinstance(error, OSError):
        return storage_error(database, "the database cannot be reached", f" ({error.strerror or error})")
    return StorageError(f"{database}: {error}")


def _translate_driver_error(error: sa_exc.DBAPIError, database: str) -> ConsiliumError:
    sqlite_name = getattr(error.orig, "sqlite_errorname", None)
    sqlstate = getattr(error.orig, "sqlstate", None)
    if _schema_is_missing(sqlstate, str(error.orig)):
        return not_ready(database, f"its tables are not those of this version: {MIGRATE}")
    if sqlite_name is not None:
        primary_code = "_".join(str(sqlite_name).split("_")[:2])
        if says := _SQLITE_SAYS.get(primary_code):
            return storage_error(database, says)
    if sqlstate is not None and (says := _POSTGRES_SAYS.get(sqlstate) or _POSTGRES_CLASSES_SAY.get(sqlstate[:2])):
        return storage_error(database, says)
    if error.connection_invalidated:
        return storage_error(database, "the connection to the database was lost")
    if isinstance(error, sa_exc.IntegrityError):
        return Conflict("the change contradicts what is stored: something it refers to is gone, or it exists already")
    if isinstance(error, sa_exc.DataError) or (sqlstate or "").startswith("22"):
        return InvalidRequest("a value cannot be stored: it is too long or too large, or holds a character that no text may hold")
    return StorageError(f"{database}: {_first_line(error.orig)}")


def _schema_is_missing(sqlstate: str | None, message: str) -> bool:
    return sqlstate in {"42P01", "42703"} or "no such table" in message or "no such column" in message


def _first_line(error: BaseException | None) -> str:
    """What the driver said, in one line: the statement and its values are never told."""
    return str(error).strip().split("\n", 1)[0]
