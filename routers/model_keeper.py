"""The models that routers use now, and how they follow the registry.

A model is made when an enabled strategy or a request first wants it, and made anew as a whole when the questions, the outcomes or
the experts change. Until then, a model that can takes up an expert that came and drops one that went, without being fitted: a fit may
take minutes, and wait for others before it. Routing uses what is there and never waits for a newer one; what cannot be made leaves the
old one in use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from domain.deadline import Clock
from domain.errors import ConsiliumError, InvalidRequest, NotReady
from domain.registry import RegistrySnapshot
from routers.background import computed
from routers.learned.base import Features
from routers.question_index import TextEncoder
from routers.training_data import Columns, Describe, OutcomeSource, PoolChange, TrainingData, columns_of_table, read_training_data

_log = logging.getLogger(__name__)

MAX_MODELS = 16
"""Models held at once, each router with each of its options one: a caller who tries out options must not fill the memory."""
MIN_PAUSE_S = 1.0
"""Between two rounds: while a measurement runs the outcomes change every second."""
_PAUSE_SHARE = 4.0
"""A pause lasts so many times as long as the round before it, so that following the registry takes a fifth of one core."""
RETRY_S = 10.0
"""After a round that failed: the database may be back."""
_MAX_CAME = 3
"""Experts that came, or were measured anew, that models take up without a fit. With more at once, or more than half of all, everything
has changed."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Key = tuple[str, str]
"""A router's name and its options, as text."""


class Recipe(Protocol[T_co]):
    """How one model is made."""

    def depends_on(self, snapshot: RegistrySnapshot) -> object:
        """What else of the registry it is made of, beside questions, outcomes and the experts' ids; compared."""
        ...

    async def make(self, data: TrainingData, snapshot: RegistrySnapshot) -> T_co:
        """The model. Raises ``ConsiliumError`` that says what is missing."""
        ...

    async def adapted(self, model: Any, change: PoolChange, data: TrainingData, snapshot: RegistrySnapshot) -> T_co | None:
        """*model* after *change*, by what *data* has now, in much less time than it takes to make one: what it says of other experts
        stays. None when it cannot follow; raises ``ConsiliumError`` for the same."""
        ...


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """A model that is there."""

    model: T
    version: int
    """Of the registry that it was made from."""
    seconds: float
    """That it took."""
    as_made: T | None = None
    """What it was before it learnt anything; None when it has not."""


WantedBy = Callable[[RegistrySnapshot], Iterable[tuple[Key, Recipe[Any]]]]
"""Which models the registry's enabled strategies need."""


class ModelKeeper:
    """Holds models by key. ``keep`` is to run in the background for as long as they are to follow the registry."""

    def __init__(
        self,
        encoder: TextEncoder,
        source: OutcomeSource,
        snapshot: Callable[[], RegistrySnapshot],
        *,
        describe: Describe = Features,
        max_models: int = MAX_MODELS,
        min_pause_s: float = MIN_PAUSE_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._encoder, self._source, self._snapshot, self._describe = encoder, source, snapshot, describe
        self._max_models, self._min_pause_s, self._clock = max_models, min_pause_s, clock
        self._wanted_by: list[WantedBy] = []
        self._wanted: OrderedDict[Key, Recipe[Any]] = OrderedDict()
        self._by_strategies: frozenset[Key] = frozenset()
        self._made: dict[Key, Made[Any]] = {}
        self._num_made: Counter[str] = Counter()
        self._failed: dict[Key, str] = {}
        self._made_from: dict[Key, object] = {}
        """By key: versions of what the last attempt to make it looked at."""
        self._fitted_on: dict[Key, object] = {}
        """By key: the content that the last fit was made of."""
        self._columns: dict[Key, Columns] = {}
        """By key: what the model in use knows of each expert."""
        self._round, self._adapting, self._reading = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._adapted_to: object = None
        self._stale, self._urgent, self._news, self._changed = (asyncio.Event() for _ in range(4))
        self._is_idle = False
        """Whether the next change is at once followed by a whole round."""
        self._doing: tuple[str, float] | None = None
        self._trouble = ""

    def serve(self, wanted_by: WantedBy) -> None:
        """Also make what *wanted_by* names, before anybody asks."""
        self._wanted_by.append(wanted_by)

    def held(self, key: Key) -> Made[Any] | None:
        """The model of *key*, when it is there."""
        return self._made.get(key)

    async def made(self, key: Key, recipe: Callable[[], Recipe[T]], *, wait_s: float) -> Made[T]:
        """The model of *key*; at its first use it is made by *recipe*, and waited for at most *wait_s*.

        Raises ``NotReady`` when it is not there by then, which says how far it is, or cannot be made, which says why.
        """
        if (made := self._made.get(key)) is not None:
            if key in self._wanted:
                self._wanted.move_to_end(key)
            return made
        if key not in self._wanted:
            self._want(key, recipe())
            self._stale.set()
            self._urgent.set()
        try:
            async with asyncio.timeout(wait_s):
                while key not in self._made:
                    if key in self._failed:
                        raise NotReady(f"the router {key[0]!r} cannot be used: {self._failed[key]}")
                    await self._news.wait()
        except TimeoutError:
            raise NotReady(f"the router {key[0]!r} is being fitted ({self.progress()}); ask again in a moment") from None
        return self._made[key]

    def replace(self, key: Key, old: Made[T], model: T) -> bool:
        """Put *model*, which *old*'s has become, in its place; False when that is not the one in use any more."""
        if self._made.get(key) is not old:
            return False
        self._made[key] = replace(old, model=model, as_made=old.model if old.as_made is None else old.as_made)
        return True

    def restore(self, router: str) -> None:
        """Put the models of *router* back to what they were when they were made."""
        for key in self.keys(router):
            made = self._made[key]
            if made.as_made is not None:
                self._made[key] = replace(made, model=made.as_made, as_made=None)

    def num_made(self, router: str) -> int:
        """Models that were made for *router* since the start; each was as made then."""
        return self._num_made[router]

    def keys(self, router: str) -> tuple[Key, ...]:
        """Of the models that *router* has now."""
        return tuple(key for key in self._made if key[0] == router)

    def progress(self) -> str:
        """What is going on, for people."""
        if self._doing is None:
            return self._trouble or "waiting for its turn"
        what, since = self._doing
        return f"{what}, for {self._clock() - since:.0f} s"

    def changed(self) -> None:
        """The registry has changed."""
        self._stale.set()
        self._changed.set()

    async def keep(self) -> None:
        """Follow the registry until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_fitted())
            group.create_task(self._keep_adapted())

    async def _keep_adapted(self) -> None:
        """Between whole rounds, and while one goes on."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._is_idle:
                continue
            began = self._clock()
            try:
                if not await self.adapt():
                    continue
            except ConsiliumError as error:
                _log.info("the models of routers were not adapted, the next fit sees to it: %s", error)
            except Exception:  # noqa: BLE001 - logged; models in use stay
                _log.exception("the models of routers were not adapted")
            await asyncio.sleep(max(self._min_pause_s, _PAUSE_SHARE * (self._clock() - began)))

    async def _keep_fitted(self) -> None:
        while True:
            self._stale.clear()
            self._urgent.clear()
            began, failed = self._clock(), True
            try:
                await self.refresh()
            except ConsiliumError as error:
                _log.warning("the models of routers were not brought up to date: %s", error)
                self._trouble, pause_s = f"the last attempt failed: {error}", RETRY_S
            except Exception:  # noqa: BLE001 - logged; models in use stay, and the next round may be fine
                _log.exception("the models of routers were not brought up to date")
                self._trouble, pause_s = "the last attempt failed; the log has the details", RETRY_S
            else:
                failed = False
                self._trouble = ""
                pause_s = max(self._min_pause_s, _PAUSE_SHARE * (self._clock() - began))
            try:
                async with asyncio.timeout(pause_s):
                    await self._urgent.wait()
            except TimeoutError:
                if not failed:
                    self._is_idle = True
                    try:
                        await self._stale.wait()
                    finally:
                        self._is_idle = False

    async def refresh(self) -> None:
        """One round: make what is wanted and missing, or was made from what has changed. Raises when outcomes cannot be read."""
        async with self._round:
            snapshot = self._snapshot()
            self._want_for_strategies(snapshot)
            if not self._wanted:
                return
            basis = await self._basis(snapshot)
            due = {
                key: (recipe, made_from)
                for key, recipe in self._wanted.items()
                if self._made_from.get(key) != (made_from := (basis, recipe.depends_on(snapshot)))
            }
            if not due:
                return
            try:
                data, columns = await self._read(snapshot)
                for key, (recipe, _) in due.items():  # at once, before the first fit begins
                    await self._adapt(key, recipe, data, columns, snapshot)
                self._adapted_to = basis
                for key, (recipe, made_from) in due.items():
                    await self._make(key, recipe, data, columns, snapshot)
                    self._made_from[key] = made_from
            finally:
                self._doing = None
            if await self._basis(self._snapshot()) != basis:
                # Experts may have come or gone meanwhile: a model that was made for the first time knows nothing of it.
                self._adapted_to = None
                self._changed.set()

    async def adapt(self) -> bool:
        """Let the models that there are take up who came and drop who went, without fitting any. False when nothing has changed that they
        do not know. Raises when outcomes cannot be read."""
        async with self._adapting:
            snapshot = self._snapshot()
            basis = await self._basis(snapshot)
            if not self._made or basis == self._adapted_to:
                return False
            data, columns = await self._read(snapshot, tell=lambda _: None)
            for key, recipe in list(self._wanted.items()):
                await self._adapt(key, recipe, data, columns, snapshot)
            self._adapted_to = basis
            return True

    async def _basis(self, snapshot: RegistrySnapshot) -> object:
        outcomes = await self._source.outcomes_version()
        return snapshot.questions_version, frozenset(snapshot.experts), outcomes, self._encoder.encoder_id

    async def _read(self, snapshot: RegistrySnapshot, *, tell: Callable[[str], None] | None = None) -> tuple[TrainingData, Columns]:
        async with self._reading:  # of two at once, each would encode the new questions: the second finds their vectors stored
            data = await read_training_data(
                self._source,
                self._encoder,
                self._describe,
                expert_ids=sorted(snapshot.experts),
                questions_version=snapshot.questions_version,
                tell=tell or self._tell,
            )
        return data, await computed(lambda: columns_of_table(data.table), name="compare outcomes")

    async def _adapt(self, key: Key, recipe: Recipe[Any], data: TrainingData, columns: Columns, snapshot: RegistrySnapshot) -> None:
        while (made := self._made.get(key)) is not None:
            adapted = await self._adapted(recipe, made, self._columns[key], (data, columns), snapshot)
            if adapted is None:
                return
            if self._made.get(key) is made:  # else it has learnt something meanwhile, which must not be lost
                self._made[key], self._columns[key] = adapted, columns
                _log.info("the model of the router %s follows the experts that came and went", key[0])
                return

    async def _adapted(
        self, recipe: Recipe[T], made: Made[T], before: Columns, now: tuple[TrainingData, Columns], snapshot: RegistrySnapshot
    ) -> Made[T] | None:
        """*made*, which knows *before*, as it is by what there is *now*; None when there is nothing to follow, or it cannot."""
        data, columns = now
        change = PoolChange.between(before, columns)
        if not change or len(change.came) > min(_MAX_CAME, len(columns) / 2):
            return None
        try:
            model = await recipe.adapted(made.model, change, data, snapshot)
            as_made = None if made.as_made is None else await recipe.adapted(made.as_made, change, data, snapshot)
        except ConsiliumError as error:
            _log.info("a model was not adapted, the next fit sees to it: %s", error)
            return None
        if model is None:
            return None
        return replace(made, model=model, as_made=as_made, version=snapshot.version)

    async def _make(self, key: Key, recipe: Recipe[Any], data: TrainingData, columns: Columns, snapshot: RegistrySnapshot) -> None:
        content = (self._encoder.encoder_id, recipe.depends_on(snapshot), columns)
        if key in self._made and self._fitted_on.get(key) == content:
            self._failed.pop(key, None)
            return  # an expert that nobody has measured, a question that nobody was asked: the same would come of it
        self._tell(f"fitting on {len(data.table)} questions of {len(data.table.expert_ids)} experts")
        began, known = self._clock(), self._columns.get(key)
        try:
            model = await recipe.make(data, snapshot)
        except ConsiliumError as error:
            kept = "the one in use stays" if key in self._made else "there is none yet"
            _log.warning("the model of the router %s was not made, %s: %s", key[0], kept, error)
            self._failed[key] = str(error)
        except Exception:  # noqa: BLE001 - logged; the other routers' models are to be made all the same
            _log.exception("the model of the router %s was not made", key[0])
            self._failed[key] = "its model could not be made; the log has the details"
        else:
            made = Made(model, snapshot.version, self._clock() - began)
            took_s = made.seconds
            if self._columns.get(key) is not known:
                made, columns = await self._caught_up(recipe, made, columns)
            if key in self._wanted:
                self._made[key], self._columns[key], self._fitted_on[key] = made, columns, content
                self._num_made[key[0]] += 1
            self._failed.pop(key, None)
            _log.info("the model of the router %s was made from %d questions in %.1f s", key[0], len(data.table), took_s)
        self._news.set()  # whoever waits looks again, and waits for the next one
        self._news = asyncio.Event()

    async def _caught_up(self, recipe: Recipe[T], made: Made[T], columns: Columns) -> tuple[Made[T], Columns]:
        """*made*, which knows *columns*, with the experts that came and went while it was fitted: those whom it replaces knew them."""
        snapshot = self._snapshot()
        now = await self._read(snapshot, tell=lambda _: None)
        adapted = await self._adapted(recipe, made, columns, now, snapshot)
        return (made, columns) if adapted is None else (adapted, now[1])

    def _tell(self, what: str) -> None:
        self._doing = (what, self._clock())

    def _want_for_strategies(self, snapshot: RegistrySnapshot) -> None:
        found = dict(pair for wanted_by in self._wanted_by for pair in wanted_by(snapshot))
        self._by_strategies = frozenset(found)
        for key, recipe in found.items():
            if key not in self._wanted:
                self._want(key, recipe)

    def _want(self, key: Key, recipe: Recipe[Any]) -> None:
        self._wanted[key] = recipe
        for old in list(self._wanted):
            if len(self._wanted) <= self._max_models:
                break
            if old not in self._by_strategies and old != key:
                for held in (self._wanted, self._made, self._failed, self._made_from, self._fitted_on, self._columns):
                    held.pop(old, None)


def models_of_strategies(
    routers: Mapping[str, Callable[[Mapping[str, Any]], tuple[Key, Recipe[Any]]]], snapshot: RegistrySnapshot
) -> list[tuple[Key, Recipe[Any]]]:
    """The models that the enabled strategies of *snapshot* need: of *routers*, by name, each from its options. A router that
    wraps another names it in its options as ``base``, with ``base_options``."""
    found = []
    for strategy, router, options in _routers_of_strategies(snapshot):
        if router in routers:
            try:
                found.append(routers[router](options))
            except InvalidRequest as error:
                _log.warning("the strategy %s has options that its router does not take: %s", strategy, error)
    return found


def options_of_strategies(router: str, snapshot: RegistrySnapshot) -> Iterator[Mapping[str, Any]]:
    """What the enabled strategies of *snapshot* tell *router*, also where another router wraps it; unchecked."""
    return (options for _, named, options in _routers_of_strategies(snapshot) if named == router)


def _routers_of_strategies(snapshot: RegistrySnapshot) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Of each enabled strategy its id and the routers that it names, each with its options."""
    for strategy in snapshot.strategies.values():
        if strategy.enabled:
            yield strategy.id, strategy.router, strategy.router_options
            inner, options = strategy.router_options.get("base"), strategy.router_options.get("base_options")
            if isinstance(inner, str) and (options is None or isinstance(options, Mapping)):
                yield strategy.id, inner, options or {}
