"""Every bound of the pipeline, by name, with unit and reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold for every request, whatever a strategy or a caller asks for."""

    max_timeout_s: float = 600.0
    """Longest deadline that a request may have: a forgotten client must not hold experts for hours."""
    max_calls: int = 16
    """Hard cap on calls for one request, whatever their role: cost grows linearly with it."""
    max_experts: int = 8
    """Largest panel: a fusing expert's context and attention give out beyond it."""
    max_stand_ins: int = 3
    """Experts that are asked, one after the other, in place of those that failed. When so many fail, more would only be loaded with what
    the failed ones leave."""
    hedge_share: float = 0.1
    """Second calls for silent experts, as a share of the requests: where everybody is slow, asking twice makes all slower."""
    hedge_burst: float = 10.0
    """Second calls that may be saved up: a process that was idle, or an expert that suddenly hangs."""
    hold_headers_s: float = 1.0
    """How long a panel's stream is held back, so that an early failure is a real HTTP error and not an event."""
    hold_first_token_s: float = 4.5
    """The same for a single expert's first token, which is nearer; after it the stream shows signs of life. Under the five seconds
    without a byte that callers are promised (``docs/http-api.md``)."""
    close_grace_s: float = 5.0
    """How long a cancelled expert call may take to let go."""
