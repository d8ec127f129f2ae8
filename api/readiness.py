"""What is there and what is still missing while the service starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.errors import NotReady

READY = "ready"


@dataclass(slots=True)
class Readiness:
    """Parts by name, each ``ready`` or a phrase that says what it waits for. Read by ``/ready``, written by the start-up."""

    parts: dict[str, str] = field(default_factory=dict)

    def expect(self, *names: str) -> None:
        """Name the parts that must be there."""
        for name in names:
            self.parts.setdefault(name, "not started yet")

    def set(self, name: str, state: str) -> None:
        self.parts[name] = state

    def done(self, name: str) -> None:
        self.parts[name] = READY

    def is_done(self, name: str) -> bool:
        return self.parts.get(name) == READY

    @property
    def missing(self) -> Mapping[str, str]:
        return {name: state for name, state in self.parts.items() if state != READY}

    @property
    def is_ready(self) -> bool:
        return all(map(READY.__eq__, self.parts.values()))

    def require(self, *names: str) -> None:
        """Raise ``NotReady`` that names what is missing, of *names* or of all."""
        if self.is_ready:  # nearly always
            return
        waiting = {name: state for name, state in self.missing.items() if not names or name in names}
        if waiting:
            raise NotReady("not ready yet: " + "; ".join(f"{name}: {state}" for name, state in waiting.items()))
