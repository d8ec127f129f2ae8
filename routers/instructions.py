"""What every expert is for, as vectors, and how it did on questions like the one asked: what the instruction router compares with.

Both are made in the background and kept until questions, outcomes, cards or skills change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domain.experts import ExpertCard, ExpertRole
from domain.registry import RegistrySnapshot
from domain.skills import SkillProfile
from routers.background import computed
from routers.learned.base import Floats, mean_scores, score_matrix
from routers.question_index import TextEncoder
from routers.scoring import UNKNOWN_SHARE
from routers.training_data import PoolChange, TrainingData

_MAX_SKILLS = 5
"""Measured skills of an expert that count as what it is for: its best."""
_GOOD = 0.5
"""Accuracy from which a skill may be one of them."""
_MAX_WINS = 20
"""Questions of an expert that count: those that it answered and most others did not."""
_NUM_PIECES = 3
"""Pieces of an expert's instructions, the nearest, whose mean similarity counts."""
_NUM_NEIGHBOURS = 24
_KERNEL_WIDTH = 0.1
"""Of neighbours: one that is this much less similar counts 1/e."""
_PRIOR_STRENGTH = 1.0
"""Answers that an expert's overall score is worth among the neighbours."""
_GLOBAL_WIDTH = 0.1
"""Of instructions: an expert that is this much less similar than the best gets 1/e of its share."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """E experts. Immutable."""

    column_of: Mapping[str, int]
    pieces: Floats
    """(P, D) unit vectors of everything that says what an expert is for."""
    owner: npt.NDArray[np.intp]
    """(P,) the expert's column."""
    texts: tuple[str, ...]
    """(P) what they say."""
    questions: Floats
    """(N, D) unit vectors of the questions with outcomes."""
    scores: Floats
    """(N, E), NaN where not measured."""
    overall: Floats
    """(E,) mean scores, shrunk towards the pool's; of an expert that was never measured a twentieth of that, as the skill router does."""
    _rows: tuple[npt.NDArray[np.intp], ...] = field(init=False, repr=False, compare=False)
    """Of each column, where its pieces are."""

    def __post_init__(self) -> None:
        ends = np.bincount(self.owner, minlength=len(self.column_of)).cumsum()[:-1]
        rows = np.split(np.argsort(self.owner, kind="stable"), ends) if self.column_of else []
        object.__setattr__(self, "_rows", tuple(rows))

    def similarities(self, vector: Floats) -> tuple[Floats, list[str]]:
        """(E,) how near an instruction's vector (D,) is to what each expert is for, the mean of its nearest pieces; -1 where nothing
        is known. And the nearest piece of each, in words."""
        values, nearest = np.full(len(self.column_of), -1.0), [""] * len(self.column_of)
        cosines = self.pieces @ vector
        for column, rows in enumerate(self._rows):
            if len(rows):
                best = rows[np.argsort(-cosines[rows], kind="stable")[:_NUM_PIECES]]
                values[column], nearest[column] = float(cosines[best].mean()), self.texts[best[0]]
        return values, nearest

    def local(self, vector: Floats) -> Floats:
        """(E,) expected scores in [0, 1] on a query's vector (D,), from the questions nearest to it."""
        if not len(self.questions):
            return self.overall
        cosines = self.questions @ vector
        near = np.argpartition(-cosines, min(_NUM_NEIGHBOURS, len(cosines)) - 1)[:_NUM_NEIGHBOURS]
        weights = np.exp((cosines[near] - cosines[near].max()) / _KERNEL_WIDTH)[:, None]
        measured = ~np.isnan(self.scores[near])
        total = (weights * np.where(measured, self.scores[near], 0.0)).sum(axis=0) + _PRIOR_STRENGTH * self.overall
        expected: Floats = total / ((weights * measured).sum(axis=0) + _PRIOR_STRENGTH)
        return expected


def global_shares(similarities: Floats) -> Floats:
    """(E,) in [0, 1]: 1 for the most similar expert, less for the others by how much less similar they are; 0 where nothing is known."""
    known = similarities > -1
    if not known.any():
        return np.zeros_like(similarities)
    shares: Floats = np.where(known, np.exp((similarities - similarities[known].max()) / _GLOBAL_WIDTH), 0.0)
    return shares


class InstructionsRecipe:
    """Made from cards, measured skills, and the questions that an expert wins."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def depends_on(self, snapshot: RegistrySnapshot) -> object:
        """What cards and skills say."""
        cards = tuple((card.id, card.description, card.skills, card.exemplars) for card in _candidates(snapshot))
        return cards, tuple(sorted(snapshot.skills.items()))

    async def make(self, data: TrainingData, snapshot: RegistrySnapshot) -> Instructions:
        """Also without outcomes: what cards declare is then all there is."""
        cards = _candidates(snapshot)
        column_of = {card.id: column for column, card in enumerate(cards)}
        told = [(column_of[card.id], text) for card in cards for text in _declared(card, snapshot)]
        vectors = await self._encoder.encode([text for _, text in told])
        return await computed(lambda: _joined(column_of, told, vectors, data), name="read instructions")

    async def adapted(self, _model: Instructions, _change: PoolChange, _data: TrainingData, _snapshot: RegistrySnapshot) -> None:
        """Never: reading what experts are for takes no longer."""


def _candidates(snapshot: RegistrySnapshot) -> list[ExpertCard]:
    return [card for card in snapshot.experts.values() if card.enabled and ExpertRole.CANDIDATE in card.roles]


def _declared(card: ExpertCard, snapshot: RegistrySnapshot) -> list[str]:
    """What a card says, and the skills that its expert was measured to be good at."""
    skills = [*card.skills, *_measured_skills(snapshot.profiles.get(card.id))]
    named = [f"{skill}: {text}" if (text := snapshot.skills.get(skill)) else skill for skill in skills]
    return list(dict.fromkeys(text for text in (card.description, *named, *card.exemplars) if text.strip()))


def _measured_skills(profile: SkillProfile | None) -> list[str]:
    if profile is None:
        return []
    accuracies = {skill: count.accuracy(prior_correct=1, prior_wrong=1) for skill, count in profile.by_skill.items()}
    good = [skill for skill, accuracy in accuracies.items() if accuracy > _GOOD]
    return sorted(good, key=lambda skill: (-accuracies[skill], skill))[:_MAX_SKILLS]


def _joined(column_of: Mapping[str, int], told: Sequence[tuple[int, str]], vectors: Floats, data: TrainingData) -> Instructions:
    table = data.table
    scores = np.full((len(table), len(column_of)), np.nan, np.float32)
    measured = score_matrix(table)
    for number, expert_id in enumerate(table.expert_ids):
        if expert_id in column_of:
            scores[:, column_of[expert_id]] = measured[:, number]
    owner, texts, pieces = [column for column, _ in told], [text for _, text in told], [vectors]
    for column in range(len(column_of)):
        rows = _wins(scores, column)
        owner += [column] * len(rows)
        texts += [table.questions[row] for row in rows]
        pieces.append(data.features.vectors[rows].reshape(len(rows), vectors.shape[1]))
    return Instructions(
        column_of=column_of,
        pieces=np.concatenate(pieces),
        owner=np.array(owner, np.intp),
        texts=tuple(texts),
        questions=data.features.vectors,
        scores=scores,
        overall=np.where(np.isnan(scores).all(axis=0), UNKNOWN_SHARE, 1.0) * mean_scores(scores),
    )


def _wins(scores: Floats, column: int) -> list[int]:
    """Rows that the expert answered, those that fewest others did first."""
    own = scores[:, column]
    others = np.where(np.isnan(scores), 0.0, scores).mean(axis=1) if len(scores) else np.zeros(0)
    won = np.flatnonzero(own > _GOOD)
    return [int(row) for row in won[np.argsort(others[won], kind="stable")[:_MAX_WINS]]]
