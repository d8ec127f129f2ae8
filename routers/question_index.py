"""Labelled questions, searchable: which are nearest to a query, and how similar the query is to each of their skills."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from domain.skills import LabelledQuestion
from routers.one_core import search_on_one_core
from routers.skill_space import Floats, SkillSpace, fit

_NUM_NEIGHBOURS = 24
_NUM_TOLD = 8
"""Of them those that a comparison tells, for the category and for people."""
_NUM_NEAREST = 3
"""A skill's own nearest questions whose mean similarity counts."""
_CENTRE_SHARE = 0.5
"""Against the nearest questions. Centres are the better half where a skill is one cluster, neighbours where it is several;
half and half was best or level on the zoo and on 13 public tasks."""


class TextEncoder(Protocol):
    """What an index needs of the encoder."""

    @property
    def encoder_id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def encode(self, texts: Sequence[str]) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled question near a query. ``similarity`` is a cosine in [-1, 1]."""

    question: LabelledQuestion
    similarity: float


class QuestionIndex:
    """Immutable. Exact search (FAISS, flat): at 10,000 questions still under a millisecond."""

    def __init__(
        self, encoder_id: str, questions: Sequence[LabelledQuestion], vectors: Floats, skill_names: Sequence[str], name_vectors: Floats
    ) -> None:
        """*vectors* (n, d) are the encoder's, row by row those of *questions*; every question has a label."""
        import faiss

        self.encoder_id = encoder_id
        self.questions = tuple(questions)
        self.skills: tuple[str, ...] = tuple(dict.fromkeys(label for question in questions for label in question.labels))
        """The skills that have labelled questions, in the order in which they first occur."""
        number = {skill: i for i, skill in enumerate(self.skills)}
        self._labels = [tuple(number[label] for label in question.labels) for question in questions]
        counts = np.bincount([i for of_question in self._labels for i in of_question], minlength=len(self.skills))
        self._num_nearest: list[int] = np.minimum(counts, _NUM_NEAREST).tolist()
        self._space: SkillSpace = fit(vectors, self._labels, len(self.skills))
        self._faiss: Any = faiss.IndexFlatIP(vectors.shape[1])
        if len(vectors):
            self._faiss.add(self._space.project(vectors))
        self._skill_names = tuple(skill_names)
        self._name_vectors = name_vectors

    @classmethod
    async def build(
        cls, encoder: TextEncoder, questions: Sequence[LabelledQuestion], skills: Mapping[str, str], known_vectors: Mapping[str, bytes]
    ) -> tuple[QuestionIndex, dict[str, bytes]]:
        """The index over *questions* and the vectors that had to be made for it (question id → float32, little-endian).

        *known_vectors* come from the same encoder; one of another length is made again. Questions without skill and
        category say nothing about skills and are left out.
        """
        labelled = [question for question in questions if question.labels]
        size = encoder.dimensions * 4
        unknown = [i for i, question in enumerate(labelled) if len(known_vectors.get(question.id, b"")) != size]
        vectors = np.zeros((len(labelled), encoder.dimensions), np.float32)
        made = await encoder.encode([labelled[i].question for i in unknown])
        vectors[unknown] = made
        for i in set(range(len(labelled))).difference(unknown):
            vectors[i] = np.frombuffer(known_vectors[labelled[i].id], "<f4")
        names = tuple(dict.fromkeys([*skills, *(label for question in labelled for label in question.labels)]))
        name_vectors = await encoder.encode(names)
        index = await asyncio.to_thread(cls, encoder.encoder_id, labelled, vectors, names, name_vectors)
        return index, {labelled[i].id: vector.astype("<f4").tobytes() for i, vector in zip(unknown, made, strict=True)}

    def project(self, vectors: Floats) -> Floats:
        """Encoder vectors (n, d) as unit vectors of the space in which everything here is compared."""
        return self._space.project(vectors)

    def search(self, vector: Floats, k: int) -> list[Neighbour]:
        """The *k* nearest labelled questions of one encoder vector (d,), nearest first; fewer when there are fewer."""
        similarities, rows = self._nearest(self.project(vector[None]), k)
        return [Neighbour(self.questions[row], float(similarity)) for similarity, row in zip(similarities[0], rows[0], strict=True)]

    def compare(self, projected: Floats) -> tuple[Floats, list[list[Neighbour]]]:
        """How similar projected vectors (n, d) are to each of ``skills``, and the eight nearest questions of each vector.

        Similarities (n, skills) are cosines in [-1, 1]: half the similarity to the skill's centre, half the mean similarity
        to the skill's nearest questions. Of a skill that is not among the neighbours, the farthest neighbour's similarity
        is taken: it is at most that near.
        """
        to_centres = projected @ self._space.centres.T
        if not self.questions:
            return to_centres, [[] for _ in range(len(projected))]
        values, rows = self._nearest(projected, _NUM_NEIGHBOURS)
        to_nearest = np.empty_like(to_centres)
        neighbours = []
        for i in range(len(projected)):
            # Plain numbers: two dozen neighbours are too few for array operations to pay.
            near = list(zip(values[i].tolist(), rows[i].tolist(), strict=True))
            farthest = near[-1][0]
            to_nearest[i] = farthest
            of_skill: dict[int, list[float]] = {}
            for value, row in near:
                for skill in self._labels[row]:
                    of_skill.setdefault(skill, []).append(value)
            for skill, found in of_skill.items():
                counted = found[: (wanted := self._num_nearest[skill])]
                to_nearest[i, skill] = (sum(counted) + (wanted - len(counted)) * farthest) / wanted
            neighbours.append([Neighbour(self.questions[row], value) for value, row in near[:_NUM_TOLD]])
        return (_CENTRE_SHARE * to_centres + (1 - _CENTRE_SHARE) * to_nearest).astype(np.float32, copy=False), neighbours

    def nearest_name(self, vector: Floats) -> tuple[str, float] | None:
        """The skill whose *name* is nearest to one encoder vector (d,), with the cosine; None when there is no skill."""
        if not self._skill_names:
            return None
        cosines = self._name_vectors @ vector
        best = int(cosines.argmax())
        return self._skill_names[best], float(cosines[best])

    def _nearest(self, projected: Floats, k: int) -> tuple[Floats, Any]:
        """Similarities and rows of the nearest questions, (n, k) each; no columns when there are no questions."""
        if not self.questions:
            return np.zeros((len(projected), 0), np.float32), np.zeros((len(projected), 0), np.int64)
        search_on_one_core()
        similarities, rows = self._faiss.search(projected, min(k, len(self.questions)))
        return similarities, rows
