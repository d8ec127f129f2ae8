"""From a key's limits to what one request has to pass, and from a verdict to what its caller is told. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from domain.errors import LimitReached, QuotaExceeded, RateLimited
from domain.keys import KeyLimits
from domain.limiting import BUSY_RETRY_S, Kind, Rule, Unit, Verdict
from domain.spending import NANO, Spent, day_of, nano_usd, seconds_left


def rules_of(limits: KeyLimits, need: Spent, now: float) -> tuple[Rule, ...]:
    """What a request that will use *need* has to pass at *now* (seconds since the epoch)."""
    rules: list[Rule] = []
    if limits.max_concurrency is not None:
        rules.append(Rule(Kind.CONCURRENCY, Unit.REQUESTS, limits.max_concurrency, 1))
    if limits.requests_per_minute is not None:
        rules.append(Rule(Kind.WINDOW, Unit.REQUESTS, limits.requests_per_minute, 1))
    if limits.tokens_per_minute is not None:
        rules.append(Rule(Kind.WINDOW, Unit.TOKENS, limits.tokens_per_minute, need.tokens))
    if has_budgets(limits):
        day = day_of(now)
        month = day[:7]
        if limits.tokens_per_day is not None:
            rules.append(Rule(Kind.BUDGET, Unit.TOKENS, limits.tokens_per_day, need.tokens, day))
        if limits.tokens_per_month is not None:
            rules.append(Rule(Kind.BUDGET, Unit.TOKENS, limits.tokens_per_month, need.tokens, month))
        if limits.usd_per_day is not None:
            rules.append(Rule(Kind.BUDGET, Unit.USD, nano_usd(limits.usd_per_day), need.nano_usd, day))
        if limits.usd_per_month is not None:
            rules.append(Rule(Kind.BUDGET, Unit.USD, nano_usd(limits.usd_per_month), need.nano_usd, month))
    return tuple(rules)


def has_budgets(limits: KeyLimits) -> bool:
    """Whether days or months are bounded."""
    return (
        limits.tokens_per_day is not None
        or limits.tokens_per_month is not None
        or limits.usd_per_day is not None
        or limits.usd_per_month is not None
    )


def counts_use(limits: KeyLimits) -> bool:
    """Whether what a request will use has to be estimated."""
    return limits.tokens_per_minute is not None or has_budgets(limits)


def refusal(rule: Rule, retry_after_s: float, now: float) -> LimitReached:
    """What the caller is told when *rule* refuses."""
    match rule.kind:
        case Kind.CONCURRENCY:
            message = f"this key has {rule.limit} requests under way, which is all that it may have at once: wait for one to end"
            return RateLimited(message, retry_after_s=BUSY_RETRY_S)
        case Kind.WINDOW:
            if rule.cost > rule.limit:
                message = (
                    f"the request may take about {rule.cost:,} {rule.unit.value}, and this key may use {rule.limit:,} a minute: "
                    "shorten it, set a smaller max_tokens, or ask fewer experts"
                )
                return RateLimited(message, retry_after_s=None)
            message = f"this key may use {rule.limit:,} {rule.unit.value} a minute and has: try again in {math.ceil(retry_after_s)} s"
            return RateLimited(message, retry_after_s=retry_after_s)
        case Kind.BUDGET:
            of = "day" if len(rule.period) > len("2026-11") else "month"
            money = rule.unit is Unit.USD
            limit = f"{rule.limit / NANO:g} US dollars" if money else f"{rule.limit:,} tokens"
            asked = f"{rule.cost / NANO:.6f} US dollars" if money else f"{rule.cost:,} tokens"
            message = (
                f"this key's budget of {limit} for the {of} {rule.period} (UTC) leaves no room for a request that may take {asked}: ask "
                "whoever runs this service for more"
            )
            return QuotaExceeded(message, retry_after_s=seconds_left(rule.period, now))


Headers = tuple[tuple[bytes, bytes], ...]


def headers_of(rules: Sequence[Rule], verdict: Verdict) -> Headers:
    """OpenAI's ``x-ratelimit-*``, of the limits per minute that the key has."""
    told: list[tuple[bytes, bytes]] = []
    for rule, left, reset_s in zip(rules, verdict.left, verdict.reset_s, strict=True):
        if rule.kind is Kind.WINDOW:
            name = rule.unit.value.encode()
            told += (
                (b"x-ratelimit-limit-" + name, b"%d" % rule.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(0, left)),
                (b"x-ratelimit-reset-" + name, duration(reset_s)),
            )
    return tuple(told)


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: ``20ms``, ``1.5s``, ``1m0.3s``."""
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest / 10:g}s"
    return (f"{minutes}m{shown}" if minutes else shown).encode()
