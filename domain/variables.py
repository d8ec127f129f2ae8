"""Environment variables of the service itself: what they hold must go to no expert's server."""

from __future__ import annotations

_OF_THE_SERVICE = ("CONSILIUM_", "STACK_")
"""The settings, and what the compose stack makes them from: keys of the admin plane and passwords of databases among them."""


def is_of_the_service(name: str) -> bool:
    """Whether the variable *name* is one of those; letters count in either case, as for the settings."""
    return name.upper().startswith(_OF_THE_SERVICE)
