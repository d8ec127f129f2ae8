"""A small estimator that really learns, a source of outcomes in memory, and a learned router over the hashing encoder."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from domain.errors import InvalidRequest
from domain.outcomes import NOT_MEASURED, OutcomeTable, floats
from domain.registry import RegistrySnapshot
from routers.annotators import EmbeddingAnnotator
from routers.learned.base import Features, Floats, ScoreModel, score_matrix
from routers.learned_router import LearnedRouter
from routers.model_keeper import ModelKeeper, models_of_strategies
from routers.options import check_known
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import QUESTIONS, holder_for

GOOD = {"calculator": ("addition", "multiplication"), "atlas": ("capitals",), "mirror": ("reversing",)}


@dataclass(frozen=True)
class NearestMean:
    """The mean score of each expert on the *k* nearest questions that it was measured on."""

    k: int = 3
    name: ClassVar[str] = "nearest-mean"

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> Self:
        check_known(values, ("k",), router=cls.name)
        return cls(**values)

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> ScoreModel:
        if len(table) < self.k:
            raise InvalidRequest(f"{len(table)} questions are too few for k = {self.k}")
        return NearestMeanModel(table.expert_ids, features.vectors, np.array(score_matrix(table)), self.k)


@dataclass(frozen=True)
class NearestMeanModel:
    expert_ids: tuple[str, ...]
    vectors: Floats
    scores: Floats
    k: int

    def predict(self, features: Features) -> Floats:
        found = np.zeros((len(features), len(self.expert_ids)))
        for row, similarities in enumerate(features.vectors @ self.vectors.T):
            for column in range(len(self.expert_ids)):
                measured = np.flatnonzero(~np.isnan(self.scores[:, column]))
                nearest = measured[np.argsort(-similarities[measured], kind="stable")[: self.k]]
                found[row, column] = self.scores[nearest, column].mean()
        return found

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        return {"nearest": np.argsort(-(self.vectors @ features.vectors[row]), kind="stable")[: self.k].tolist()}

    def updated(self, vector: Floats, expert_id: str, score: float) -> NearestMeanModel:
        new = np.full((1, len(self.expert_ids)), np.nan)
        new[0, self.expert_ids.index(expert_id)] = score
        # As often as it takes to be heard over what was measured: one answer among three would change no choice.
        times = self.k
        vectors = np.concatenate([self.vectors, *[vector[None, :]] * times])
        return replace(self, vectors=vectors, scores=np.concatenate([self.scores, *[new] * times]))


def outcome_table(experts: Sequence[str] = ("calculator", "atlas", "mirror")) -> OutcomeTable:
    """The specialists of ``tests.fakes.routing`` on its questions: right on their own ground, wrong elsewhere."""
    rows = [(f"{skill}-{number}", text, category, skill) for category, skill, texts in QUESTIONS for number, text in enumerate(texts)]
    return OutcomeTable(
        questions=tuple(text for _, text, _, _ in rows),
        expert_ids=tuple(experts),
        scores=floats(float(skill in GOOD.get(expert, ())) for *_, skill in rows for expert in experts),
        question_ids=tuple(question_id for question_id, *_ in rows),
        categories=tuple(category for _, _, category, _ in rows),
        skills=tuple((skill,) for *_, skill in rows),
    )


class MemorySource:
    """Outcomes and vectors in memory; counts what is asked of it."""

    def __init__(self, table: OutcomeTable | None = None) -> None:
        self.table = outcome_table() if table is None else table
        self.version = 1
        self.error: Exception | None = None
        self.stored: dict[str, bytes] = {}
        self.num_reads = 0
        self.entered = threading.Event()

    def change(self, table: OutcomeTable) -> None:
        self.table, self.version = table, self.version + 1

    async def outcome_table(self, expert_ids: Sequence[str]) -> OutcomeTable:
        self.num_reads += 1
        self.entered.set()
        kept = [expert_id for expert_id in self.table.expert_ids if expert_id in expert_ids]
        matrix = score_matrix(self.table)[:, [self.table.expert_ids.index(expert_id) for expert_id in kept]]
        return replace(self.table, expert_ids=tuple(kept), scores=floats(matrix.ravel().tolist()))

    async def outcomes_version(self) -> object:
        if self.error is not None:
            raise self.error
        return self.version

    async def vectors(self, encoder_id: str) -> Mapping[str, bytes]:
        return self.stored

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes], *, questions_version: int) -> None:
        self.stored |= vectors


class World:
    """A registry that changes, and what follows it."""

    def __init__(self, snapshot: RegistrySnapshot, source: MemorySource | None = None, **keeper: Any) -> None:
        self.snapshot = snapshot
        self.source = source or MemorySource()
        self.encoder = HashingEncoder()
        self.keeper = ModelKeeper(self.encoder, self.source, lambda: self.snapshot, **keeper)
        self.routers: dict[str, LearnedRouter] = {}
        self.keeper.serve(lambda snapshot: models_of_strategies({name: r.model_for for name, r in self.routers.items()}, snapshot))

    async def router(self, name: str = "nearest-mean", factory: Any = NearestMean.with_options) -> LearnedRouter:
        holder = await holder_for(self.snapshot, self.encoder)
        annotator = EmbeddingAnnotator(self.encoder)
        router = LearnedRouter(name, factory, self.keeper, index_holder=holder, annotator=annotator, encoder=self.encoder)
        self.routers[name] = router
        return router

    async def fitted(self, name: str = "nearest-mean", options: Mapping[str, Any] | None = None) -> LearnedRouter:
        """A router whose model is there."""
        router = self.routers.get(name) or await self.router(name)
        key, recipe = router.model_for(options or {})
        self.keeper._want(key, recipe)
        await self.keeper.refresh()
        return router


def unmeasured(table: OutcomeTable, question_id: str, expert_id: str) -> OutcomeTable:
    """*table* without one outcome."""
    scores = floats(table.scores)
    scores[table.question_ids.index(question_id) * len(table.expert_ids) + table.expert_ids.index(expert_id)] = NOT_MEASURED
    return replace(table, scores=scores)
