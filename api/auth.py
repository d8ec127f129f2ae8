"""Who may come in: stored keys, keys from the settings, one admin key from the settings or the data dir."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.settings import Settings, SettingsError
from domain.access import EVERYTHING, OF_ALL, PUBLIC, Access, Owner
from domain.errors import Forbidden, Unauthenticated
from domain.keys import ApiKey, KeySecret, Role
from domain.registry import RegistrySnapshot

_BEARER = "bearer "
ADMIN = "admin"
"""What the admin key is called, in the audit log and as the owner of batches. No stored key may have this id."""
_OWNERS_ONLY = ("/admin/api/keys", "/admin/api/audit")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Which change nothing."""
MIN_ADMIN_KEY = 16
"""Letters of an admin key. Every visitor of the login page gets something signed with it, against which guesses can be tried elsewhere."""


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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and with which rights."""

    id: str
    """For people: of a stored key its id."""
    access: Access = PUBLIC
    key: ApiKey | None = None
    """The stored one, whose limits hold."""
    role: Role | None = None
    """On the admin plane; None keeps the caller out of there."""
    secret: KeySecret | None = None
    """Of the stored key the one that was shown."""

    @property
    def key_id(self) -> str | None:
        """What files and batches belong to, and requests are accounted under."""
        return self.key.id if self.key is not None else ADMIN if self.id == ADMIN else None

    @property
    def owner(self) -> Owner:
        """Whose files and batches the caller may see."""
        return OF_ALL if self.id == ADMIN else Owner(self.key_id)

    def sees_all_of(self, snapshot: RegistrySnapshot) -> bool:
        """Whether nothing of the registry is kept from the caller: a key of the settings, or a stored one with a role or without
        restrictions that bite."""
        if self.key is None or self.role is not None:
            return True
        return self.access.strategies is None and all(self.access.sees(card) for card in snapshot.experts.values())


ANYBODY = Caller("anybody")
"""Who needs no key."""
_OF_SETTINGS = Caller("settings")
_ADMIN = Caller(ADMIN, EVERYTHING, role=Role.OWNER)

KeysNow = Callable[[], Mapping[str, ApiKey]]
"""The stored keys by id, as this process knows them: the same object until something changes."""


class Auth:
    """The two planes' rules.

    Data plane: where *is_open*, on loopback, everybody on the machine may come in as long as there is no key at all; otherwise one is
    needed. The admin key opens the data plane too. Admin plane: always the admin key, or a stored key with a role.
    """

    def __init__(
        self,
        *,
        api_keys: Iterable[str],
        admin_key: str,
        stored: KeysNow = dict,
        is_open: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._data = KeyRing(api_keys)
        self._admin = KeyRing([admin_key])
        self._stored, self._is_open, self._now = stored, is_open, now
        self._lent: dict[str, Caller] = {}
        self._page_secret = hmac.digest(admin_key.encode("utf-8", "surrogateescape"), b"consilium sessions of the admin UI", "sha256")
        self._known: Mapping[str, ApiKey] = {}
        self._by_digest: dict[str, tuple[ApiKey, KeySecret]] = {}

    def require_data(self, authorization: str | None) -> Caller:
        """Who asks. Raises ``Unauthenticated`` unless *authorization* opens the data plane."""
        stored = self._stored()
        if self._is_open and not stored and not self._data:
            if authorization is not None and (key := _bearer(authorization)) is not None and self._caller(key, stored) is _ADMIN:
                return _ADMIN
            return ANYBODY
        key = _bearer(authorization)
        if key is None:
            raise Unauthenticated("an API key is needed: send 'Authorization: Bearer <key>'")
        caller = self._caller(key, stored)
        if caller is None:
            raise Unauthenticated("this API key is not known here")
        return caller

    def require_admin(self, authorization: str | None, needed: Role = Role.OWNER) -> Caller:
        """Who asks. Raises ``Unauthenticated`` unless *authorization* opens the admin plane, ``Forbidden`` when its role does not reach."""
        key = _bearer(authorization)
        if key is None:
            raise Unauthenticated("the admin key is needed: send 'Authorization: Bearer <admin key>' (the file admin.key in the data dir)")
        caller = self._caller(key, self._stored())
        if caller is None:
            raise Unauthenticated("this is not the admin key")
        if caller.role is None:
            raise Unauthenticated("this key has no role on the admin plane: send the admin key, or one with a role")
        if not caller.role.includes(needed):
            raise Forbidden(f"this needs the role {needed.value}, and the key {caller.id!r} has the role {caller.role.value}")
        return caller

    def is_news(self, authorization: str | None) -> bool:
        """Whether it brings a key that this process has never heard of: one that has expired or was revoked is no news."""
        key = _bearer(authorization)
        try:
            return key is not None and self._caller(key, self._stored()) is None
        except Unauthenticated:
            return False

    @property
    def page_secret(self) -> bytes:
        """What sessions of the admin UI are signed with: the same in every process that has the same admin key."""
        return self._page_secret

    def proof_of(self, key: str) -> str:
        """What a session keeps of the *key* that it began with: enough to see whether that still opens the door, and nothing of it."""
        return self._proof(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest())

    def still(self, key_id: str, proof: str) -> Caller | None:
        """Who a session belongs to, with the rights of now; None once the key that it began with would not be let in."""
        if key_id == ADMIN:
            return _ADMIN  # another admin key signs otherwise
        key = self._stored().get(key_id)
        secret = next((s for s in key.secrets if hmac.compare_digest(self._proof(s.sha256), proof)), None) if key is not None else None
        if key is None or secret is None:
            return None
        try:
            caller = self._checked(key, secret)
        except Unauthenticated:
            return None
        return caller if caller.role is not None else None

    @contextmanager
    def lent(self, caller: Caller) -> Iterator[str]:
        """An ``Authorization`` that is *caller* in this process until the block ends: how pages use the API in somebody's name, with the
        rights that this key has by then."""
        token = secrets.token_urlsafe(32)
        self._lent[token] = caller
        try:
            yield f"Bearer {token}"
        finally:
            del self._lent[token]

    def _proof(self, sha256: str) -> str:
        return hmac.new(self._page_secret, sha256.encode(), "sha256").hexdigest()[:32]

    def _caller(self, key: str, stored: Mapping[str, ApiKey]) -> Caller | None:
        if self._lent and (lent := self._lent.get(key)) is not None:
            return self._anew(lent, stored)
        if stored:
            if stored is not self._known:
                self._known = stored
                self._by_digest = {secret.sha256: (known, secret) for known in stored.values() for secret in known.secrets}
            # A look-up by a digest tells by its time nothing that helps to find the secret.
            found = self._by_digest.get(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest())
            if found is not None:
                return self._checked(*found)
        if self._admin.holds(key):
            return _ADMIN
        return _OF_SETTINGS if self._data.holds(key) else None

    def _anew(self, caller: Caller, stored: Mapping[str, ApiKey]) -> Caller:
        """*caller* with the rights of now: what runs in somebody's name may run for long. Raises ``Unauthenticated``."""
        if caller.key is None or caller.secret is None:
            return caller
        key = stored.get(caller.key.id)
        secret = next((one for one in key.secrets if one.sha256 == caller.secret.sha256), None) if key is not None else None
        if key is None or secret is None:
            raise Unauthenticated(f"the API key {caller.id!r} does not work any more: ask for another one")
        return self._checked(key, secret)

    def _checked(self, key: ApiKey, secret: KeySecret) -> Caller:
        now = self._now()
        state = key.state(now)
        if state != "active":
            raise Unauthenticated(f"the API key {key.id!r} {'is revoked' if state == 'revoked' else 'has expired'}: ask for another one")
        if secret.until is not None and now >= secret.until:
            raise Unauthenticated(f"the API key {key.id!r} has a new secret, and this old one does not work any more")
        return Caller(key.id, key.rights, key, key.role, secret)


def needed_role(method: str, path: str) -> Role:
    """What a request to the admin plane needs."""
    if path.startswith(_OWNERS_ONLY) and not (method in SAFE_METHODS and path.startswith("/admin/api/keys")):
        return Role.OWNER
    return Role.VIEWER if method in SAFE_METHODS else Role.EDITOR


def load_admin_key(settings: Settings) -> str:
    """The admin key: from the settings, else from ``admin.key`` in the data dir, else made there (mode 0600) and printed once.

    Raises ``SettingsError`` when it is blank or shorter than ``MIN_ADMIN_KEY``.
    """
    if settings.admin_key is not None:
        return _long_enough(settings.admin_key.get_secret_value().strip(), "CONSILIUM_ADMIN_KEY", "unset it to have one made")
    path = settings.data_dir / "admin.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _read(path)
    except FileNotFoundError:
        key = f"ck-admin-{secrets.token_urlsafe(32)}"
    # Written beside it and linked: what another process reads at this moment is a whole key, or none.
    written = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key + "\n")
        os.link(written, path)
    except FileExistsError:  # another process made it at the same moment
        return _read(path)
    finally:
        written.unlink(missing_ok=True)
    print(f"admin key (kept in {path}): {key}", file=sys.stderr)  # once, on purpose: the person who starts it needs it
    return key


def _read(path: Path) -> str:
    return _long_enough(path.read_text().strip(), str(path), "delete it to have a new admin key made")


def _long_enough(key: str, where: str, otherwise: str) -> str:
    if len(key) < MIN_ADMIN_KEY:
        size = "is empty" if not key else f"has {len(key)} letters"
        raise SettingsError(
            f"{where} {size}, and an admin key needs at least {MIN_ADMIN_KEY}, as `openssl rand -hex 24` makes them: set another one, "
            f"or {otherwise}"
        )
    return key


def _bearer(authorization: str | None) -> str | None:
    if authorization is None or not authorization.lower().startswith(_BEARER):
        return None
    return authorization[len(_BEARER) :].strip() or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
