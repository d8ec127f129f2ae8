"""Templates, and how figures and moments are written on pages."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from api.ui.assets import address_of
from api.ui.navigation import NAVIGATION
from domain.spending import NANO

FOLDER = Path(__file__).parent / "templates"
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MOST_DIGITS = 12
"""Behind the point: a token of the cheapest models costs 1e-8 US dollars."""


@cache
def environment() -> Environment:
    """Everything is escaped, and a name that nobody gave is an error. Templates are read once."""
    made = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, auto_reload=False, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "ago": ago,
        "moment": moment,
        "number": number,
        "ms": milliseconds,
        "percent": percent,
        "usd": dollars,
        "bytes": size,
        "mb": megabytes,
        "seconds": seconds,
        "pretty": pretty,
        "part": lambda text: quote(str(text), safe=""),
        "compact": compact,
        "report_pair": lambda report: (report["id"], report["name"]),
        "list_pair": lambda value: (str(value), str(value)),
    }
    made.globals |= {"asset": address_of, "navigation": NAVIGATION, "address": address, "now": time.time}
    return made


@cache
def template(name: str) -> Template:
    return environment().get_template(name)


def address(path: str, /, *parts: object, **query: object) -> str:
    """*path* with *parts* behind it, each quoted, and what is given of *query*."""
    full = "/".join([path, *(quote(str(part), safe="") for part in parts)])
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{full}?{urlencode(given)}" if given else full


def ago(timestamp: float | None, now: float | None = None) -> str:
    """How long ago, in one unit."""
    if timestamp is None:
        return "never"
    since = (time.time() if now is None else now) - timestamp
    if since < -1:
        return "in " + _span(-since)
    return "now" if since < 1 else _span(since) + " ago"


def _span(length_s: float) -> str:
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if length_s >= unit:
            return f"{int(length_s // unit)} {name}"
    return f"{int(length_s)} s"


def moment(timestamp: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """In UTC."""
    return "" if timestamp is None else datetime.fromtimestamp(timestamp, UTC).strftime(form)


def number(value: float | None) -> str:
    """With thousands apart; of fractions what matters."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{value:,.0f}"
    digits = min(_MOST_DIGITS, max(0, 2 - math.floor(math.log10(abs(value)))))
    told = f"{value:,.{digits}f}"
    return told.rstrip("0").rstrip(".") if digits else told


def compact(value: float) -> str:
    """In few characters: 1,234 is 1.2k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.1f}{name}"
    return number(value)


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 60_000:
        return f"{value / 60_000:.1f} min"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def seconds(value: float | None) -> str:
    return "–" if value is None else milliseconds(value * 1000)


def percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def dollars(nano_usd: float | None) -> str:
    """Billionths of a US dollar, in dollars."""
    if nano_usd is None:
        return "–"
    usd = nano_usd / NANO
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.3g}"


def size(num_bytes: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{int(num_bytes)} B"


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / 1000:.1f} GB" if value >= 1000 else f"{value:.0f} MB"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) else str(value)
