"""Who waits for a place in an embedded expert's batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from workers.embedded.batch import Batch
from workers.limits import EmbeddedLimits


def sequence(*, cancelled: bool = False) -> Any:
    return SimpleNamespace(cancelled=cancelled, done=False, position=1, last_token=1, prompt=[1], plain=True, take=lambda *_: None)


def model() -> Any:
    """Goes on for ever, with one token."""
    cache = SimpleNamespace(reserve=lambda *_: None, clear=lambda: None)

    def logits(_cache: Any, tokens: list[int], _positions: list[int]) -> Any:
        return SimpleNamespace(argmax=lambda _: SimpleNamespace(tolist=lambda: [1] * len(tokens)))

    return SimpleNamespace(name="m", decoder=SimpleNamespace(new_cache=lambda: cache, step=logits))


def test_who_was_cancelled_leaves_the_queue_although_no_place_is_free() -> None:
    """Else a full queue of callers who have left turns others away."""
    batch = Batch(model(), EmbeddedLimits(max_batch=1), lambda *_: None)
    first, last = sequence(), sequence()
    batch.live = [sequence()]
    batch.waiting.extend([first, sequence(cancelled=True), last])

    batch.step()

    assert list(batch.waiting) == [first, last]
    assert len(batch.live) == 1
