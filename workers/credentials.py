"""Secrets by reference. The reference is stored and shown, the secret is read when a call needs it."""

from __future__ import annotations

from collections.abc import Mapping

from domain.errors import ExpertAuthFailed
from domain.variables import is_of_the_service

MIN_REDACTED = 6
"""Letters of a secret from which it is taken out of texts: shorter ones ("none", "EMPTY") are words, and keep nobody out."""


def redacted(text: str, secret: str | None) -> str:
    """*text* without *secret*: servers repeat the key that they refuse, and callers must not read it."""
    return text.replace(secret, "[key]") if secret and len(secret) >= MIN_REDACTED else text


def resolve_api_key(reference: str | None, environ: Mapping[str, str]) -> str | None:
    """The secret that *reference* (``env:NAME``) stands for; None stays None. Raises ``ExpertAuthFailed`` naming the variable."""
    if reference is None:
        return None
    scheme, _, name = reference.partition(":")
    if scheme != "env" or not name:
        # The text itself is not repeated: it may be a secret that was put in the wrong place.
        msg = "api_key must be a reference of the form env:NAME, such as env:OPENAI_API_KEY"
        raise ExpertAuthFailed(msg)
    if is_of_the_service(name):  # cards are checked too; this one may be older than the check
        msg = f"the environment variable {name} is a setting of the service itself and goes to no expert: put the key into another one"
        raise ExpertAuthFailed(msg)
    secret = environ.get(name, "").strip()
    if not secret:
        msg = f"the environment variable {name} is not set; the expert's api_key is read from it"
        raise ExpertAuthFailed(msg)
    if not secret.isprintable():
        msg = f"the environment variable {name} holds a line break or another letter that no key has; put the key into it, and nothing else"
        raise ExpertAuthFailed(msg)
    return secret
