"""Sessions of the admin UI: signed, bounded in time, and over as soon as their key is."""

from __future__ import annotations

import hashlib
import time

import pytest

from api.auth import ADMIN, Auth
from api.ui.session import SESSION_S, Sessions
from domain.errors import Forbidden, Unauthenticated
from domain.keys import ApiKey, KeySecret, Role

SECRET = b"s" * 32
KEY = "ck-of-a-viewer"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stored(**changes: object) -> dict[str, ApiKey]:
    values = {"role": Role.VIEWER, "secrets": (KeySecret(hashlib.sha256(KEY.encode()).hexdigest(), "ck-of"),), **changes}
    return {"looker": ApiKey("looker", **values)}  # type: ignore[arg-type]


def test_a_session_is_read_back_until_it_is_over() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, now=clock)
    session = sessions.begin("looker", "proof")
    cookie = sessions.write(session)

    assert sessions.read(cookie) == session
    clock.now += SESSION_S
    assert sessions.read(cookie) is None


@pytest.mark.parametrize("broken", [None, "", "x", ".", "e30.", "a.b.c", "é.é", "x" * 5000])
def test_what_is_no_cookie_of_ours_is_nobody(broken: str | None) -> None:
    assert Sessions(SECRET).read(broken) is None


def test_a_cookie_that_was_changed_or_signed_elsewhere_is_nobody() -> None:
    cookie = Sessions(SECRET).write(Sessions(SECRET).begin("looker", "proof"))
    body, _, signature = cookie.partition(".")
    forged = Sessions(SECRET).write(Sessions(SECRET).begin("admin", "")).partition(".")[0]

    assert Sessions(b"another").read(cookie) is None
    assert Sessions(SECRET).read(f"{forged}.{signature}") is None
    assert Sessions(SECRET).read(f"{body}.") is None


def test_the_token_of_a_form_belongs_to_one_session() -> None:
    sessions = Sessions(SECRET)
    one, other = sessions.begin("admin", ""), sessions.begin("admin", "")

    assert sessions.holds(one, sessions.csrf_token(one))
    assert not sessions.holds(one, sessions.csrf_token(other))
    assert not sessions.holds(one, None)
    assert sessions.csrf_token(one) not in sessions.write(one)


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": 1.0},
        {"expires_at": 1.0},
        {"role": None},
        {"secrets": (KeySecret("0" * 64, "ck-new"),)},
        {"secrets": (KeySecret(hashlib.sha256(KEY.encode()).hexdigest(), "ck-of", until=1.0),)},
    ],
)
def test_a_session_ends_with_its_key(changes: dict[str, object]) -> None:
    keys = stored()
    auth = Auth(api_keys=(), admin_key="root", stored=lambda: keys)
    proof = auth.proof_of(KEY)
    assert auth.still("looker", proof) is not None

    keys = stored(**changes)

    assert auth.still("looker", proof) is None
    assert auth.still("nobody", proof) is None


def test_another_admin_key_signs_otherwise_and_the_same_one_alike() -> None:
    one, same, other = (Auth(api_keys=(), admin_key=key) for key in ("root", "root", "changed"))

    assert one.page_secret == same.page_secret != other.page_secret
    assert one.still(ADMIN, "") is not None


@pytest.mark.parametrize("changes", [{"revoked_at": 1.0}, {"expires_at": 1.0}, {"secrets": (KeySecret("0" * 64, "ck-new"),)}])
def test_what_is_lent_ends_with_its_key(changes: dict[str, object]) -> None:
    """An evaluation that was begun on a page runs for hours: a key that is revoked meanwhile must not go on paying for it."""
    keys = stored()
    auth = Auth(api_keys=(), admin_key="root", stored=lambda: keys, now=time.time)
    caller = auth.still("looker", auth.proof_of(KEY))
    assert caller is not None

    with auth.lent(caller) as authorization:
        keys = stored(**changes)
        with pytest.raises(Unauthenticated, match="looker"):
            auth.require_data(authorization)


def test_what_is_lent_stands_for_the_caller_until_the_block_ends() -> None:
    auth = Auth(api_keys=(), admin_key="root", stored=stored, now=time.time)
    caller = auth.still("looker", auth.proof_of(KEY))
    assert caller is not None

    with auth.lent(caller) as authorization:
        assert auth.require_admin(authorization, Role.VIEWER) == caller
        with pytest.raises(Forbidden):
            auth.require_admin(authorization, Role.EDITOR)
        assert auth.require_data(authorization) == caller
    with pytest.raises(Unauthenticated):
        auth.require_admin(authorization, Role.VIEWER)
