"""A memory that holds what it is given, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import ConsiliumError
from domain.memory import Demonstration


class FakeMemory:
    """Recalls *solved*, best first, whatever the question is; raises *error* where there is one."""

    def __init__(self, *solved: tuple[str, str], error: ConsiliumError | None = None) -> None:
        self.solved, self.error = list(solved), error
        self.asked: list[tuple[str, str, int, float]] = []
        """Tenant, question, limit and smallest similarity of each."""

    async def recall(self, tenant: str, question: str, *, limit: int, min_similarity: float) -> Sequence[Demonstration]:
        self.asked.append((tenant, question, limit, min_similarity))
        if self.error is not None:
            raise self.error
        return tuple(Demonstration(f"mem-{number}", *pair, similarity=0.9) for number, pair in enumerate(self.solved[:limit], 1))
