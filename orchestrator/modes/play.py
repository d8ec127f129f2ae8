"""A mode under way, and one that is played again over outcomes that were kept. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from domain.experts import ExpertCard
from domain.plan import ExpertCall, Outcome
from orchestrator.modes.base import Ask, End, Mode, NextExpert, Step, Write


class Play:
    """Mutable. ``now`` is the step that comes next, or the end."""

    def __init__(self, mode: Mode) -> None:
        self._steps = mode.steps()
        self._num_taken = 0
        self.now: Step | End = self._steps.send(None)

    @property
    def positions(self) -> Sequence[int]:
        """Of the step's calls, among all of the mode's."""
        step = self.now
        if not isinstance(step, Ask | Write):
            return ()
        return step.positions if step.positions is not None else range(self._num_taken, self._num_taken + len(step.calls))

    @property
    def next_position(self) -> int:
        """Of the first call that is not numbered yet."""
        return self._num_taken

    def go_on(self, sent: Sequence[Outcome] | ExpertCard | None) -> None:
        """The step has come to this."""
        self._num_taken = max((self._num_taken, *(position + 1 for position in self.positions)))
        try:
            self.now = self._steps.send(sent)
        except StopIteration as ended:
            self.now = ended.value

    def close(self) -> None:
        """It ends here."""
        self._steps.close()


def replayed(
    mode: Mode,
    outcomes: Mapping[int, Outcome],
    *,
    card_of: Callable[[str], ExpertCard | None],
    chosen: Mapping[int, str] | None = None,
    on_step: Callable[[Ask | Write, Sequence[int], Sequence[Outcome]], Any] | None = None,
) -> Play:
    """*mode* as far as *outcomes* (by position) carry it; *on_step* is told every step whose calls have all ended,
    with their positions.

    Whom a mode had chosen on its way is told by who was called: *chosen* has that for calls that have not ended.
    """
    play, known = Play(mode), chosen or {}
    while True:
        step = play.now
        if isinstance(step, NextExpert):
            position = play.next_position
            expert_id = outcomes[position].expert_id if position in outcomes else known.get(position)
            if expert_id is None:
                return play
            play.go_on(card_of(expert_id))
            continue
        if not isinstance(step, Ask | Write):
            return play
        positions = play.positions
        if any(position not in outcomes for position in positions):
            return play
        ended = [outcomes[position] for position in positions]
        if on_step is not None:
            on_step(step, positions, ended)
        play.go_on(ended)


def call_at(play: Play, position: int) -> ExpertCall | None:
    """The call at *position* of the step that comes next; None when it is not among its."""
    step = play.now
    if isinstance(step, Ask | Write) and position in play.positions:
        return step.calls[play.positions.index(position)]
    return None
