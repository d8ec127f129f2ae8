"""Who is logged in, as a signed cookie: nothing is kept in the service, so every process and replica with the same admin key accepts it.

The cookie names the key that was shown and when it was. What that key may do is looked up at every request: one that was revoked, has
expired or has a new secret ends its sessions at once, and so does another admin key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

SESSION_S = 12 * 3600.0
"""How long a login lasts: a working day."""
LOGIN_S = 3600.0
"""How long a login form may stand open."""
_MAX_COOKIE = 1024


@dataclass(frozen=True, slots=True)
class Session:
    """One login."""

    key_id: str
    """Of the key that was shown; empty in a login form, before anybody has shown one."""
    proof: str
    """Follows from that key's secret, and tells nothing of it."""
    nonce: str
    expires_at: float
    """Seconds since the epoch."""


class Sessions:
    """Makes and reads the cookie's text. *secret* signs it."""

    def __init__(self, secret: bytes, *, now: Callable[[], float] = time.time) -> None:
        self._secret, self._now = secret, now

    def begin(self, key_id: str, proof: str, *, lasts_s: float = SESSION_S) -> Session:
        return Session(key_id, proof, secrets.token_urlsafe(16), self._now() + lasts_s)

    def write(self, session: Session) -> str:
        """The cookie's value."""
        fields = [session.key_id, session.proof, session.nonce, session.expires_at]
        body = _encoded(json.dumps(fields, separators=(",", ":")).encode())
        return f"{body}.{self._sign('session', body)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session that *cookie* is of; None when it is none of ours, or over."""
        if cookie is None or len(cookie) > _MAX_COOKIE:
            return None
        body, _, signature = cookie.partition(".")
        if not hmac.compare_digest(self._sign("session", body).encode(), signature.encode()):
            return None
        try:
            key_id, proof, nonce, expires_at = json.loads(_decoded(body))
        except (ValueError, binascii.Error):
            return None
        session = Session(key_id, proof, nonce, expires_at)
        return session if self._now() < session.expires_at else None

    def csrf_token(self, session: Session) -> str:
        """What every form of this session has to bring: another site can neither read nor guess it."""
        return self._sign("csrf", f"{session.key_id}.{session.nonce}")

    def holds(self, session: Session, token: str | None) -> bool:
        """Whether *token* is the session's."""
        return token is not None and hmac.compare_digest(self.csrf_token(session).encode(), token.encode())

    def _sign(self, purpose: str, text: str) -> str:
        return _encoded(hmac.digest(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
