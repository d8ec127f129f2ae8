"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The package's version; ``0`` when it runs from a folder that was never installed."""
    try:
        return version("consilium")
    except PackageNotFoundError:
        return "0"
