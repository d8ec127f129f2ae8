"""Who may come in: data-plane keys from the settings, one admin key from the settings or the data dir."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

from api.settings import Settings, SettingsError
from domain.errors import Unauthenticated

_BEARER = "bearer "


class KeyRing:
    """Keys as SHA-256 digests. Every comparison takes the same time, whichever key it is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holds(self, key: str) -> bool:
        given = _digest(key)
        found = False
        for digest in self._digests:  # no early exit: the time must not tell which key matched
            found |= hmac.compare_digest(given, digest)
        return found


class Auth:
    """The two planes' rules.

    Data plane: on loopback without keys everybody on the machine may come in; otherwise one of the keys is needed. The admin
    key opens the data plane too. Admin plane: always the admin key.
    """

    def __init__(self, *, api_keys: Iterable[str], admin_key: str) -> None:
        self._data = KeyRing(api_keys)
        self._admin = KeyRing([admin_key])

    def require_data(self, authorization: str | None) -> None:
        """Raise ``Unauthenticated`` unless *authorization* opens the data plane."""
        if not self._data:
            return
        key = _bearer(authorization)
        if key is None:
            raise Unauthenticated("an API key is needed: send 'Authorization: Bearer <key>'")
        if not (self._data.holds(key) | self._admin.holds(key)):
            raise Unauthenticated("this API key is not known here")

    def require_admin(self, authorization: str | None) -> None:
        """Raise ``Unauthenticated`` unless *authorization* carries the admin key."""
        key = _bearer(authorization)
        if key is None:
            raise Unauthenticated("the admin key is needed: send 'Authorization: Bearer <admin key>' (the file admin.key in the data dir)")
        if not self._admin.holds(key):
            raise Unauthenticated("this is not the admin key")


def load_admin_key(settings: Settings) -> str:
    """The admin key: from the settings, else from ``admin.key`` in the data dir, else made there (mode 0600) and printed once."""
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    path = settings.data_dir / "admin.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _read(path)
    except FileNotFoundError:
        key = f"ck-admin-{secrets.token_urlsafe(32)}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process made it at the same moment
        return _read(path)
    with os.fdopen(fd, "w") as file:
        file.write(key + "\n")
    print(f"admin key (kept in {path}): {key}", file=sys.stderr)  # once, on purpose: the person who starts it needs it
    return key


def _read(path: Path) -> str:
    key = path.read_text().strip()
    if not key:
        raise SettingsError(f"{path} is empty: delete it to have a new admin key made")
    return key


def _bearer(authorization: str | None) -> str | None:
    if authorization is None or not authorization.lower().startswith(_BEARER):
        return None
    return authorization[len(_BEARER) :].strip() or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
