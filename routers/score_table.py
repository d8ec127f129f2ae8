"""The registry's counts as matrices, made once per registry version and index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from domain.registry import RegistrySnapshot
from routers.index_holder import RoutingIndex
from routers.scoring import Counts

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Rows are the snapshot's experts and, last, one for an expert that it does not know; columns are skills, the last one
    for skills that nobody knows."""

    row_of: dict[str, int]
    column_of: dict[str, int]
    num_answered: Floats
    num_correct: Floats
    declared: Floats
    overall_answered: Floats
    overall_correct: Floats
    symbolic_total: Floats
    pool_accuracy: float | None
    """Correct answers per answer over all experts; None when nobody was measured."""

    @classmethod
    def build(cls, snapshot: RegistrySnapshot, index: RoutingIndex) -> ScoreTable:
        claims = index.declared.by_expert
        names = dict.fromkeys(index.skills)
        for profile in snapshot.profiles.values():
            names.update(dict.fromkeys(profile.by_skill))
        for claimed in claims.values():
            names.update(dict.fromkeys(sorted(claimed)))
        column_of = {name: i for i, name in enumerate(names)}
        row_of = {expert_id: i for i, expert_id in enumerate(snapshot.experts)}
        shape = (len(row_of) + 1, len(column_of) + 1)
        answered, correct, declared = (np.zeros(shape) for _ in range(3))
        overall = np.zeros((2, shape[0]))
        for expert_id, row in row_of.items():
            if profile_of := snapshot.profiles.get(expert_id):
                overall[:, row] = profile_of.overall.num_answered, profile_of.overall.num_correct
                columns = [column_of[skill] for skill in profile_of.by_skill]
                answered[row, columns] = [count.num_answered for count in profile_of.by_skill.values()]
                correct[row, columns] = [count.num_correct for count in profile_of.by_skill.values()]
            for skill in claims.get(expert_id, ()):
                declared[row, column_of[skill]] = 1.0
        total_answered = overall[0].sum()
        return cls(
            row_of=row_of,
            column_of=column_of,
            num_answered=answered,
            num_correct=correct,
            declared=declared,
            overall_answered=overall[0],
            overall_correct=overall[1],
            symbolic_total=(2 * correct - answered).sum(axis=1),
            pool_accuracy=float(overall[1].sum() / total_answered) if total_answered else None,
        )

    def counts(self, expert_ids: Sequence[str], skills: Sequence[str]) -> Counts:
        """The counts of *expert_ids* on *skills*, in their order. Unknown experts and skills have none."""
        rows = np.fromiter(map(self.row_of.get, expert_ids, repeat(-1)), np.intp, len(expert_ids))
        columns = np.fromiter(map(self.column_of.get, skills, repeat(-1)), np.intp, len(skills))
        cells = rows[:, None], columns
        return Counts(
            num_answered=self.num_answered[cells],
            num_correct=self.num_correct[cells],
            declared=self.declared[cells],
            overall_answered=self.overall_answered[rows],
            overall_correct=self.overall_correct[rows],
            symbolic_total=self.symbolic_total[rows],
        )
