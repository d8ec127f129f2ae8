"""API keys in the database. A secret is hashed before it comes here, and shown once by whoever made it."""

from __future__ import annotations

import builtins
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.access import Access
from domain.errors import Conflict, InvalidRequest
from domain.keys import ApiKey, KeyLimits, KeySecret, Role
from domain.nearest import did_you_mean
from experts_registry import state
from experts_registry.database import Database
from experts_registry.tables import api_keys, experts, strategies
from experts_registry.versioned import VersionedTable

PREFIX = "ck-"
"""Of every secret, so that scanners for leaked keys can find them."""
_SECRET_BYTES = 32
_SHOWN_CHARS = 10
"""Of a secret that are kept to recognise it by: forty of its 256 random bits."""
MAX_SECRETS = 4
"""Secrets of one key that work at once: while one is being rotated out, seldom a second."""


def new_secret() -> str:
    """256 random bits, behind a prefix."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def hashed(secret: str) -> KeySecret:
    """*secret* as it is kept."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    return KeySecret(digest, secret[:_SHOWN_CHARS])


def _to_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "version": key.version,
        "name": key.name,
        "role": None if key.role is None else key.role.value,
        "access": {
            "labels": sorted(key.access.labels),
            "experts": None if key.access.experts is None else sorted(key.access.experts),
            "strategies": None if key.access.strategies is None else sorted(key.access.strategies),
            "all_labels": key.access.all_labels,
        },
        "limits": {name: value for name, value in asdict(key.limits).items() if value is not None},
        "secrets": [asdict(secret) for secret in key.secrets],
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _from_row(row: sa.RowMapping) -> ApiKey:
    access = row["access"]
    return ApiKey(
        id=row["id"],
        name=row["name"],
        role=None if row["role"] is None else Role(row["role"]),
        access=Access(
            labels=frozenset(access["labels"]),
            experts=None if access["experts"] is None else frozenset(access["experts"]),
            strategies=None if access["strategies"] is None else frozenset(access["strategies"]),
            all_labels=access["all_labels"],
        ),
        limits=KeyLimits(**row["limits"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        secrets=tuple(KeySecret(**secret) for secret in row["secrets"]),
        version=row["version"],
    )


KEYS = VersionedTable(kind="key", table=api_keys, to_row=_to_row, from_row=_from_row)


class KeyStore:
    """API keys. Every method is one transaction; every change bumps the registry's version, so that all processes follow."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, now

    async def list(self) -> builtins.list[ApiKey]:
        """Every key, by id, revoked ones too."""
        async with self._database.reading() as connection:
            return await KEYS.all(connection)

    async def get(self, key_id: str) -> ApiKey:
        """Raises ``NotFound`` with the nearest id."""
        async with self._database.reading() as connection:
            return await KEYS.one(connection, key_id)

    async def exist(self) -> bool:
        """Whether there is any key, whatever its state."""
        async with self._database.reading() as connection:
            return await connection.scalar(sa.select(api_keys.c.id).limit(1)) is not None

    async def issue(self, key: ApiKey) -> tuple[ApiKey, str]:
        """Store a new key; with its secret, which nobody can be told again.

        Raises ``Conflict`` when the id is taken, ``InvalidRequest`` when it names an expert or a strategy that is not there.
        """
        secret = new_secret()
        made = replace(key, created_at=self._now(), revoked_at=None, secrets=(hashed(secret),))
        async with self._database.session() as connection:
            await state.lock(connection)
            await _require_named(connection, made)
            stored = await KEYS.insert(connection, made)
            await state.bump(connection)
        return stored, secret

    async def create(self, key: ApiKey) -> ApiKey:
        """``issue`` without telling the secret: of no use but to hold an id."""
        return (await self.issue(key))[0]

    async def replace(self, key: ApiKey, if_version: int | None = None) -> ApiKey:
        """Put what may be changed of *key* (name, role, access, limits, expiry) in the place of what is stored.

        Raises ``NotFound``, ``PreconditionFailed`` when the stored version is not *if_version* (None: whichever it is), ``Conflict`` when
        the key is revoked, ``InvalidRequest`` as ``issue`` does.
        """

        async def changed(connection: AsyncConnection, stored: ApiKey) -> ApiKey:
            wanted = replace(key, created_at=stored.created_at, revoked_at=None, secrets=stored.secrets)
            await _require_named(connection, wanted, besides=stored)
            return wanted

        return await self._change(key.id, if_version, changed)

    async def rotate(self, key_id: str, *, overlap_s: float, if_version: int | None = None) -> tuple[ApiKey, str]:
        """A new secret for the key; those before it work for *overlap_s* more. Raises like ``replace``."""
        secret, now = new_secret(), self._now()

        async def changed(_connection: AsyncConnection, stored: ApiKey) -> ApiKey:
            until = now + overlap_s
            old = [replace(known, until=min(until, known.until or until)) for known in stored.secrets]
            kept = [known for known in old if known.until is None or known.until > now]
            return replace(stored, secrets=(hashed(secret), *kept[: MAX_SECRETS - 1]))

        return await self._change(key_id, if_version, changed), secret

    async def revoke(self, key_id: str, if_version: int | None = None) -> ApiKey:
        """It opens nothing any more, for good. Raises ``NotFound`` or ``PreconditionFailed``; once more changes nothing."""
        async with self._database.session() as connection:
            await state.lock(connection)
            stored = await KEYS.one(connection, key_id)
            if stored.revoked_at is not None:
                return stored
            revoked = await KEYS.update(connection, replace(stored, revoked_at=self._now()), if_version)
            await state.bump(connection)
        return revoked

    async def delete(self, key_id: str, if_version: int | None = None) -> None:
        """``revoke``."""
        await self.revoke(key_id, if_version)

    async def _change(self, key_id: str, if_version: int | None, change: Callable[[AsyncConnection, ApiKey], Any]) -> ApiKey:
        async with self._database.session() as connection:
            await state.lock(connection)
            stored = await KEYS.one(connection, key_id)
            if stored.revoked_at is not None:
                raise Conflict(f"the key {key_id!r} is revoked, and stays so: create another one", param="id")
            after = await KEYS.update(connection, await change(connection, stored), if_version)
            await state.bump(connection)
        return after


async def _require_named(connection: AsyncConnection, key: ApiKey, *, besides: ApiKey | None = None) -> None:
    """Raise ``InvalidRequest`` for a name that nothing has, unless it stood in *besides* already: experts may go after their key came."""
    before = besides.access if besides is not None else Access()
    for kind, table, named, known_before in (
        ("expert", experts, key.access.experts, before.experts),
        ("strategy", strategies, key.access.strategies, before.strategies),
    ):
        new = sorted((named or frozenset()) - (known_before or frozenset()))
        if not new:
            continue
        known: Sequence[str] = (await connection.scalars(sa.select(table.c.id))).all()
        if kind == "strategy" and "auto" not in known:
            known = [*known, "auto"]  # built in
        for name in new:
            if name not in known:
                field = f"access.{'experts' if kind == 'expert' else 'strategies'}"
                raise InvalidRequest(f"{field}: there is no {kind} {name!r}; {did_you_mean(name, sorted(known))}", param=field)
