"""The service's adapter around any estimator of ``routers.learned``: the model follows the registry, and decides queries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from domain.errors import InvalidRequest, NotReady
from domain.experts import ExpertCard
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery
from routers import pick
from routers.annotators import Annotation, Annotator
from routers.background import computed
from routers.explanation import how_selected, pick_object, unknown_query
from routers.index_holder import IndexHolder
from routers.learned.base import (
    CategorisingModel,
    Estimator,
    ExtendableModel,
    Features,
    Floats,
    ScoreModel,
    UpdatableModel,
    columns_of,
    score_matrix,
)
from routers.model_keeper import Key, Made, ModelKeeper, options_of_strategies
from routers.one_core import one_core
from routers.options import SkillsOptions
from routers.question_index import TextEncoder
from routers.ranking import rank
from routers.scoring import UNKNOWN_SHARE
from routers.training_data import Describe, PoolChange, TrainingData
from routers.unroutable import fallback_expert, require_text

EstimatorFactory = Callable[[Mapping[str, Any]], Estimator]
"""Makes an estimator from its options. Raises ``InvalidRequest`` for those that it does not take."""
OptionsFromCards = Callable[[Iterable[ExpertCard]], Mapping[str, Any]]
"""Options that the registry's cards answer where a strategy leaves them open."""

MEASURE = "measure experts with `consilium profile run`"
_WAIT_SHARE = 0.5
"""Of the request's time, for a model that is being fitted: the other half is for the answer."""
_SEED = 0
_FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A score model, and what is known of the experts that it was fitted on."""

    scores: ScoreModel
    place: Mapping[str, int]
    """Expert id to its column."""
    num_answered: Mapping[str, int]
    mean_score: Mapping[str, float]
    pool_mean: float
    """Over all outcomes."""
    num_questions: int


class FitRecipe:
    """Fits an estimator on every outcome that counts."""

    def __init__(self, factory: EstimatorFactory, options: Mapping[str, Any], from_cards: OptionsFromCards = lambda _: {}) -> None:
        """Raises ``InvalidRequest`` for *options* that the estimator does not take."""
        factory(options)
        self._factory, self._options, self._from_cards = factory, options, from_cards

    def depends_on(self, snapshot: RegistrySnapshot) -> object:
        """What cards say of the options."""
        return self._from_cards(snapshot.experts.values())

    async def make(self, data: TrainingData, snapshot: RegistrySnapshot) -> Fitted:
        """Raises ``NotReady`` without outcomes, and what the estimator says is missing."""
        if not len(data.table):
            raise NotReady(f"nothing was measured yet; {MEASURE}")
        try:
            estimator = self._factory({**self._from_cards(snapshot.experts.values()), **self._options})
            return await computed(lambda: _fitted(estimator, data), name=f"fit {estimator.name}")
        except InvalidRequest as error:
            raise NotReady(f"{error.message}; {MEASURE}") from error

    async def adapted(self, model: Fitted, change: PoolChange, data: TrainingData, snapshot: RegistrySnapshot) -> Fitted | None:
        """Where the algorithm takes experts one by one (``ExtendableModel``)."""
        if not (hasattr(model.scores, "with_expert") and hasattr(model.scores, "without_expert")):
            return None
        estimator = self._factory({**self._from_cards(snapshot.experts.values()), **self._options})

        def follow() -> Fitted:
            scores = cast(ExtendableModel, model.scores)
            with one_core():
                for expert_id in change.gone:
                    scores = scores.without_expert(expert_id)
                if hasattr(estimator, "reconfigured"):
                    scores = estimator.reconfigured(scores)
                for expert_id in change.came:
                    scores = scores.with_expert(expert_id, data.features, data.table)
            return _known(scores, data)

        return await computed(follow, name=f"adapt {estimator.name}")


def _fitted(estimator: Estimator, data: TrainingData) -> Fitted:
    with one_core():
        return _known(estimator.fit(data.features, data.table, seed=_SEED), data)


def _known(model: ScoreModel, data: TrainingData) -> Fitted:
    """*model* with what *data* tells of its experts."""
    scores, ids = score_matrix(data.table), data.table.expert_ids
    measured = ~np.isnan(scores)
    counts: list[int] = measured.sum(axis=0).tolist()
    sums: list[float] = np.nansum(scores, axis=0).tolist()
    return Fitted(
        scores=model,
        place=columns_of(model.expert_ids, model.expert_ids),
        num_answered=dict(zip(ids, counts, strict=True)),
        mean_score={expert_id: total / max(count, 1) for expert_id, total, count in zip(ids, sums, counts, strict=True)},
        pool_mean=sum(sums) / max(sum(counts), 1),
        num_questions=len(data.table),
    )


class LearnedRouter:
    """Expected scores from a fitted model; unmeasured experts stand behind measured ones.

    The query's text is read as the skill router reads it, with the turns that it leans on. Every estimator's options are options of
    the router, and ``floor``: the similarity to known skills below which a query goes to the strategy's fallback expert.
    """

    def __init__(
        self,
        name: str,
        factory: EstimatorFactory,
        keeper: ModelKeeper,
        *,
        index_holder: IndexHolder,
        annotator: Annotator,
        encoder: TextEncoder,
        describe: Describe = Features,
        from_cards: OptionsFromCards = lambda _: {},
    ) -> None:
        self._name, self._factory, self._keeper, self._from_cards = name, factory, keeper, from_cards
        self._index_holder, self._annotator, self._encoder, self._describe = index_holder, annotator, encoder, describe
        self._learning, self._taught_of = asyncio.Lock(), 0

    @property
    def name(self) -> str:
        return self._name

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for options that neither this router nor its estimator takes."""
        self.model_for(options)

    def model_for(self, options: Mapping[str, Any]) -> tuple[Key, FitRecipe]:
        """What the keeper has to make for *options*. Raises ``InvalidRequest``."""
        floor = options.get(_FLOOR)
        if floor is not None and (isinstance(floor, bool) or not isinstance(floor, int | float) or not -1 <= floor <= 1):
            raise InvalidRequest(
                f"router option 'floor' is {quoted(floor)}, it must be a number between -1 and 1", param=f"router_options.{_FLOOR}"
            )
        return self._key(options), FitRecipe(self._factory, _of_estimator(options), self._from_cards)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """1. read the query, 2. unlike anything known: fallback or refusal, where a floor is set, 3. predict, adjust, pick, explain.

        Raises ``NotReady`` while there is no model, ``InvalidRequest`` for wrong options, those of a model that neither a strategy has nor
        the caller may have fitted, or a query without text,
        ``NoEligibleExpert`` for a query below the floor without a fallback.
        """
        pick.check(query.pick)
        require_text(query)
        self._require_known(query, snapshot)
        made = await self._made(query)
        index = self._index_holder.index()
        floor = query.options.get(_FLOOR)
        reading = SkillsOptions() if floor is None else SkillsOptions(floor=floor)
        annotation = await self._annotator.annotate(query, snapshot, index, reading)
        expert_ids = [card.id for card in query.experts]
        features = self._describe((annotation.text,), await self._encoder.encode([annotation.text]))
        scores = expected_scores(made.model, features, expert_ids)
        ranking = rank(query, np.array(scores), _Why(made.model, expert_ids, scores).of)
        fallback = not annotation.text or (floor is not None and annotation.similarity < floor)
        if fallback:
            problem = unknown_query(annotation, reading, index.skills)
            selected: tuple[str, ...] = (fallback_expert(query, expert_ids, problem),)
            reason = f"{selected[0]} is the strategy's fallback: {problem}."
        else:
            selected = ranking.selected(query.pick, seed=query.seed)
            reason = _reason(self._name, annotation, how_selected(selected, ranking.why_of(selected[0]), query.pick))
        return RoutingDecision(
            router=self._name,
            selected=selected,
            considered=ranking.considered(selected),
            reason=reason,
            skills=annotation.skills,
            category=_category(made.model.scores, features) or annotation.category,
            fallback=fallback,
            others_fit=not fallback,
            calls=annotation.calls,
            vector=features.vectors[0].astype("<f2").tobytes() if annotation.text else None,
        ).detailed_by(partial(_detail, made, annotation, query.pick, features))

    @property
    def fitted(self) -> int:
        """Changes with every fit, which forgets what was learnt since the one before; 0 while there was none."""
        return self._keeper.num_made(self._name)

    async def reset(self) -> None:
        """Back to what was fitted."""
        async with self._learning:
            self._keeper.restore(self._name)

    async def learn(self, text_vector: Sequence[float] | Floats, outcomes: Mapping[str, float]) -> bool:
        """Update every model of this router with what experts scored, in [0, 1], on the query of that encoder vector (D,).

        Each is replaced as a whole, so that a query in flight keeps what it began with. Returns whether any has learnt: not one that
        cannot (it has no ``updated``), nor for experts that it does not know. A model that is fitted anew afterwards knows what is stored,
        not what it was told here: then all models of this router begin again, and ``fitted`` tells it.
        """
        learnt, vector = False, np.asarray(text_vector, np.float32)
        async with self._learning:  # of two at once, one would undo the other
            if self._taught_of != self.fitted:
                self._taught_of = self.fitted
                self._keeper.restore(self._name)
            for key in self._keeper.keys(self._name):
                learnt |= await self._learn(key, vector, outcomes)
        return learnt

    async def _learn(self, key: Key, vector: Floats, outcomes: Mapping[str, float]) -> bool:
        while (made := cast("Made[Fitted] | None", self._keeper.held(key))) is not None:
            known = {expert_id: score for expert_id, score in outcomes.items() if expert_id in made.model.place}
            if not known or not hasattr(made.model.scores, "updated"):
                return False
            fitted = made.model

            def update(fitted: Fitted = fitted, known: Mapping[str, float] = known) -> ScoreModel:
                model = cast(UpdatableModel, fitted.scores)
                for expert_id, score in known.items():
                    model = model.updated(vector, expert_id, score)
                return model

            updated = replace(fitted, scores=await asyncio.to_thread(update))
            if self._keeper.replace(key, made, updated):
                return True
            # It was fitted anew meanwhile: the new one has to learn it.
        return False

    def _require_known(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> None:
        """Raise ``InvalidRequest`` for options that no strategy has, from a caller who may not have a model fitted: any value would be a
        fit more, and put a model out that somebody else uses."""
        given = _of_estimator(query.options)
        if not given or query.request.access.may_fit:
            return
        if not any(_of_estimator(known) == given for known in options_of_strategies(self._name, snapshot)):
            raise InvalidRequest(
                f"router options of {self._name!r} ({', '.join(sorted(given))}) make a model of their own, which a request cannot have: "
                "write them into a strategy and ask for that, or try them out with a key that may edit strategies",
                param="consilium.router_options",
            )

    async def _made(self, query: RoutingQuery) -> Made[Fitted]:
        wait_s = _WAIT_SHARE * query.deadline.remaining_s if query.deadline else 0.0
        return await self._keeper.made(self._key(query.options), lambda: self.model_for(query.options)[1], wait_s=wait_s)

    def _key(self, options: Mapping[str, Any]) -> Key:
        """Equal for options of the estimator that are equal."""
        given = _of_estimator(options)
        return self._name, json.dumps(given, sort_keys=True, default=str) if given else ""


def _detail(made: Made[Fitted], annotation: Annotation, rule: PickRule, features: Features) -> dict[str, Any]:
    """What is shown beside the scores. JSON values only."""
    return {
        "model": {"questions": made.model.num_questions, "registry_version": made.version, "fitted_in_s": round(made.seconds, 3)},
        "with_context": annotation.with_context,
        "pick": pick_object(rule),
        "notes": list(annotation.notes),
        **made.model.scores.explain(features, 0),
    }


def _category(model: ScoreModel, features: Features) -> str | None:
    return cast(CategorisingModel, model).category_of(features, 0) if hasattr(model, "category_of") else None


def _of_estimator(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is the router's own."""
    return {name: value for name, value in options.items() if name != _FLOOR}


def expected_scores(fitted: Fitted, features: Features, expert_ids: Sequence[str]) -> list[float]:
    """What *expert_ids* are expected to score on the one query of *features*, each in [0, 1].

    An expert that was never measured gets a twentieth of the pool's mean, as it does from the skill router, and never more than
    half of what the least promising of the measured ones is given: any more, and newcomers take seats in every panel.
    """
    predicted = np.clip(np.nan_to_num(fitted.scores.predict(features)[0], nan=fitted.pool_mean), 0.0, 1.0).tolist()
    known = [predicted[fitted.place[expert_id]] for expert_id in expert_ids if expert_id in fitted.place]
    unknown = min([UNKNOWN_SHARE * fitted.pool_mean, *(score / 2 for score in known)])
    return [predicted[fitted.place[expert_id]] if expert_id in fitted.place else unknown for expert_id in expert_ids]


class _Why:
    """Why experts have their scores; in words when somebody reads them."""

    def __init__(self, fitted: Fitted, expert_ids: Sequence[str], scores: Sequence[float]) -> None:
        self._fitted, self._expert_ids, self._scores = fitted, expert_ids, scores

    def of(self, place: int) -> str:
        fitted, expert_id = self._fitted, self._expert_ids[place]
        if expert_id not in fitted.place:
            return f"never measured, so it stands behind those that were (they score {fitted.pool_mean:.2f} on average)"
        overall = f"overall {fitted.mean_score.get(expert_id, 0.0):.2f} of {fitted.num_answered.get(expert_id, 0)}"
        return f"expected score {self._scores[place]:.2f}; {overall}"


def _reason(router: str, annotation: Annotation, how: str) -> str:
    context = ", read with the turns before it," if annotation.with_context else ""
    notes = "".join(f" Note: {note}." for note in annotation.notes)
    return f"What the router {router!r} expects of each expert on this query{context} was learned from measured outcomes; {how}.{notes}"
