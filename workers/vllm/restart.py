"""How long to wait before a server that went down is started again, and when to give up. Pure.

Exponential back-off with jitter, as for calls (``workers.retry``); tenacity retries one block of code and forgets, here the row of
failures has to outlive hours of good running in between. The row ends as Kubernetes ends it: a server that was up for long
enough begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Seconds, and a count."""

    initial_s: float = 1.0
    """Wait after the first failure; doubles with every further one."""
    max_s: float = 60.0
    jitter: float = 0.5
    """Largest share of a wait that chance takes off, so that servers that died together do not start together."""
    max_failures: int = 4
    """Failures in a row at which it is given up."""
    stable_s: float = 300.0
    """Time that a server has to be up for its earlier failures to be forgotten."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Failures since the server last ran well: starts that failed, and crashes."""

    num: int = 0

    def after(self, up_s: float, policy: RestartPolicy) -> FailureRow:
        """The row with one more failure, of a server that had been up for *up_s* (0: it never was)."""
        return FailureRow(1 if up_s >= policy.stable_s else self.num + 1)

    def is_over(self, policy: RestartPolicy) -> bool:
        """Whether it is to be given up."""
        return self.num >= policy.max_failures

    def wait_s(self, policy: RestartPolicy, chance: float) -> float:
        """Seconds from the last failure to the next start; *chance* in [0, 1) makes the jitter. 0 when nothing failed."""
        if not self.num:
            return 0.0
        # The exponent is bounded before the power is: 2.0 ** 2000 is no number.
        longest = min(policy.max_s, policy.initial_s * 2.0 ** min(self.num - 1, 64))
        return longest * (1 - policy.jitter * chance)
