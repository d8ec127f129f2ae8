"""aiohttp's exceptions to ``ExpertError``, at the one seam where they appear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from domain.errors import ExpertError, ExpertProtocolError, ExpertTimeout, ExpertUnreachable
from workers.addresses import AddressRefused

_MAP: tuple[tuple[type[BaseException], type[ExpertError], str], ...] = (
    # Most specific first: the tree of aiohttp has several inheritance.
    (aiohttp.ServerTimeoutError, ExpertTimeout, "took too long to accept a connection"),
    (aiohttp.NonHttpUrlClientError, ExpertUnreachable, "has a base_url that is no http address"),
    (aiohttp.InvalidURL, ExpertUnreachable, "has a base_url that is no http address"),
    (aiohttp.ClientPayloadError, ExpertProtocolError, "broke off in the middle of its answer"),
    (aiohttp.ClientResponseError, ExpertProtocolError, "did not answer in HTTP"),
    (aiohttp.ClientConnectionError, ExpertUnreachable, "cannot be reached"),
    (aiohttp.ClientError, ExpertProtocolError, "failed"),
    (TimeoutError, ExpertTimeout, "took too long"),
    (OSError, ExpertUnreachable, "cannot be reached"),
)
_LASTING = (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL)
"""A wrong address stays wrong, however often it is tried."""
ERRORS = (aiohttp.ClientError, OSError)
_LOST = (aiohttp.ClientConnectionError, OSError)


def rule_for(kind: type[BaseException], *, mid_answer: bool = False) -> tuple[type[ExpertError], str]:
    """What an exception of *kind* means. A connection lost *mid_answer* is half an answer, not an absent server."""
    if mid_answer and issubclass(kind, _LOST) and not issubclass(kind, TimeoutError):
        return ExpertProtocolError, "broke off in the middle of its answer"
    return next((error, what) for base, error, what in _MAP if issubclass(kind, base))


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


@contextmanager
def translated(who: str, *, mid_answer: bool = False) -> Iterator[None]:
    """Lets nothing of aiohttp's out. *who* is the server, as the message names it ("expert 'a'")."""
    try:
        yield
    except ERRORS as error:
        raise translation(error, who, mid_answer=mid_answer) from error


def translation(error: BaseException, who: str, *, mid_answer: bool = False) -> ExpertError:
    """What *error*, one of ``ERRORS``, means."""
    kind, what = rule_for(type(error), mid_answer=mid_answer)
    is_refused = isinstance(error, AddressRefused) or isinstance(getattr(error, "os_error", None), AddressRefused)
    retryable = False if is_refused or isinstance(error, _LASTING) else None
    return kind(f"{who} {what} ({_said(error)})", retryable=retryable)
