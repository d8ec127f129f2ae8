"""Texts to vectors, for everybody in the process: one model, one thread that feeds it, one cache.

What waits when the thread is free goes into one run, so that concurrent requests share it and a lone one never waits for
company. Equal texts are encoded once. Long lists are cut into pieces that queue one after the other: a query that comes
meanwhile waits for one piece, not for the list.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from domain.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError

Vectors = npt.NDArray[np.float32]

DEFAULT_MODEL = "all-MiniLM-L6-v2"


class TextModel(Protocol):
    """What runs inside the encoder. ``embed`` may be called from several threads."""

    @property
    def encoder_id(self) -> str:
        """Names model, precision and recipe: vectors are comparable only under one id."""
        ...

    @property
    def dimensions(self) -> int: ...

    @property
    def early_dimensions(self) -> int:
        """Of the vector of an early layer, beside the text's; 0 where the model tells none."""
        ...

    @property
    def max_chars(self) -> int:
        """Only this much of a text counts, from its end."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, dimensions), in the order of *texts*."""
        ...

    def embed_views(self, texts: Sequence[str]) -> Vectors:
        """The same with the early layer's unit vectors behind them: (n, dimensions + early_dimensions)."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of *texts* that reach the model, its own marks included."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EncoderLimits:
    """Every bound of the encoder."""

    max_batch: int = 32
    """Texts in one run: about 0.1 s of two cores at 64 tokens a text, the longest that a query waits behind other work."""
    max_queued: int = 2048
    """Texts that may wait, about 7 s of work; more is refused at once, since a late answer is worse than an early 429."""
    cache_size: int = 8192
    """Texts whose vectors are kept (3 kB each)."""
    timeout_s: float = 30.0
    """Longest wait of one piece; only a stuck machine gets there."""
    load_timeout_s: float = 300.0
    """Longest wait for the model at the start (a first start may build it)."""


def load_model(name: str, *, cache_dir: Path, num_threads: int) -> TextModel:
    """The model called *name*: the default one in int8 on onnxruntime, anything else through sentence-transformers."""
    if name == DEFAULT_MODEL:
        from routers.onnx_model import OnnxTextModel

        return OnnxTextModel.open(cache_dir, num_threads=num_threads)
    from routers.sentence_model import SentenceModel

    return SentenceModel(name)


class _Job:
    """Texts of one caller and the future that receives their vectors."""

    __slots__ = ("future", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.future: concurrent.futures.Future[list[Vectors]] = concurrent.futures.Future()


class Encoder:
    """Owns the model, its thread, its queue and its cache."""

    def __init__(self, load: Callable[[], TextModel], *, limits: EncoderLimits | None = None) -> None:
        """*load* builds the model; it is called once, in the encoder's own thread or by the first ``encode_now``."""
        self._load = load
        self._limits = limits or EncoderLimits()
        self._model: TextModel | None = None
        self._id: str | None = None
        self._load_lock = threading.Lock()
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._num_queued = 0
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def for_model(cls, name: str, *, cache_dir: Path, num_threads: int = 2, limits: EncoderLimits | None = None) -> Encoder:
        """An encoder for the model *name* (``DEFAULT_MODEL``, a folder or a model id); nothing is loaded yet."""
        return cls(lambda: load_model(name, cache_dir=cache_dir, num_threads=num_threads), limits=limits)

    @property
    def ready(self) -> bool:
        return self._model is not None and not self._closing

    @property
    def encoder_id(self) -> str:
        """Which encoder made a vector; known also after ``close``, when vectors are still being stored. Raises ``NotReady`` before the
        model is loaded, like everything below."""
        return self._loaded().encoder_id if self._id is None else self._id

    @property
    def dimensions(self) -> int:
        return self._loaded().dimensions

    @property
    def early_dimensions(self) -> int:
        """Columns of ``encode_views`` behind the first ``dimensions``."""
        return self._loaded().early_dimensions

    @property
    def num_queued(self) -> int:
        """Texts that wait now."""
        return self._num_queued

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the model in the encoder's thread and serve. Raises what loading raises."""
        if self._thread is not None:
            return
        loaded: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._serve, args=(loaded,), name="encoder", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                await asyncio.wrap_future(loaded)
        except Exception as exc:
            self._thread = None  # so that another start tries again
            if not isinstance(exc, TimeoutError):
                raise
            raise NotReady(f"the encoder was not loaded within {self._limits.load_timeout_s:g} s") from exc

    async def close(self) -> None:
        """Refuse new texts, fail what waits, end the thread. May be called twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._limits.timeout_s)
            self._thread = None
        if self._model is not None:
            self._model.close()
            self._model = None

    # --- encoding ---------------------------------------------------------------------------------------------------

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, dimensions) float32 in the order of *texts*.

        Raises ``Overloaded`` when too much waits already, ``NotReady`` before ``start`` and after ``close``,
        ``DeadlineExceeded`` when a piece takes longer than ``timeout_s``.
        """
        return np.ascontiguousarray((await self.encode_views(texts))[:, : self._loaded().dimensions])

    async def encode_views(self, texts: Sequence[str]) -> Vectors:
        """The same with the early layer's unit vectors behind them: (n, dimensions + early_dimensions). A text costs no more this way."""
        model = self._loaded()
        clipped = [_clip(text, model.max_chars) for text in texts]
        vectors = np.empty((len(clipped), model.dimensions + model.early_dimensions), np.float32)
        missing = self._fill_from_cache(clipped, vectors)
        for start in range(0, len(missing), self._limits.max_batch):
            piece = missing[start : start + self._limits.max_batch]
            for i, vector in zip(piece, await self._queue([clipped[i] for i in piece]), strict=True):
                vectors[i] = vector
        return vectors

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of *texts* that reach the model, for accounts. Raises ``NotReady`` before ``start`` and after ``close``."""
        model = self._loaded()
        return await asyncio.to_thread(model.count_tokens, [_clip(text, model.max_chars) for text in texts])

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """``encode`` without queue and thread, for scripts. Loads the model when it is not loaded yet."""
        return np.ascontiguousarray(self.encode_views_now(texts)[:, : self._loaded().dimensions])

    def encode_views_now(self, texts: Sequence[str]) -> Vectors:
        """``encode_views`` without queue and thread."""
        model = self._load_once()
        clipped = [_clip(text, model.max_chars) for text in texts]
        vectors = np.empty((len(clipped), model.dimensions + model.early_dimensions), np.float32)
        missing = self._fill_from_cache(clipped, vectors)
        for start in range(0, len(missing), self._limits.max_batch):
            piece = missing[start : start + self._limits.max_batch]
            for i, vector in zip(piece, self._run(model, [clipped[i] for i in piece]), strict=True):
                vectors[i] = vector
        return vectors

    async def _queue(self, texts: Sequence[str]) -> list[Vectors]:
        job = _Job(texts)
        with self._wake:
            if self._closing or self._thread is None:
                raise NotReady("the encoder is not running")
            if self._num_queued + len(texts) > self._limits.max_queued:
                raise Overloaded(f"{self._num_queued} texts wait to be encoded already")
            self._jobs.append(job)
            self._num_queued += len(texts)
            self._wake.notify()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as exc:
            raise DeadlineExceeded(f"encoding took longer than {self._limits.timeout_s:g} s") from exc

    # --- the thread -------------------------------------------------------------------------------------------------

    def _serve(self, loaded: concurrent.futures.Future[None]) -> None:
        if not loaded.set_running_or_notify_cancel():  # from here on a start that is cancelled leaves the future alone
            return
        try:
            model = self._load_once()
        except BaseException as exc:  # noqa: BLE001 - whatever loading raises belongs to whoever waits in start()
            loaded.set_exception(exc)
            return
        loaded.set_result(None)
        while jobs := self._next_jobs():
            self._answer(model, jobs)

    def _next_jobs(self) -> list[_Job]:
        """Wait for work and take what is there, up to one batch; empty when the encoder closes."""
        jobs: list[_Job] = []
        size = 0
        with self._wake:
            while not jobs and not self._closing:
                self._wake.wait_for(lambda: self._jobs or self._closing)
                while self._jobs and not self._closing and (not jobs or size + len(self._jobs[0].texts) <= self._limits.max_batch):
                    job = self._jobs.popleft()
                    self._num_queued -= len(job.texts)
                    # A caller that went away meanwhile has cancelled its future: nothing is computed for it.
                    if job.future.set_running_or_notify_cancel():
                        jobs.append(job)
                        size += len(job.texts)
            if self._closing:
                for job in self._jobs:
                    if job.future.set_running_or_notify_cancel():
                        job.future.set_exception(NotReady("the encoder was closed"))
                self._jobs.clear()
                self._num_queued = 0
        return jobs

    def _answer(self, model: TextModel, jobs: Sequence[_Job]) -> None:
        try:
            found = iter(self._run(model, [text for job in jobs for text in job.texts]))
        except Exception as exc:  # noqa: BLE001 - the thread must outlive a failing batch; each waiter is told
            for job in jobs:
                error = ServiceError(f"the encoder failed: {exc}")
                error.__cause__ = exc
                job.future.set_exception(error)
            return
        for job in jobs:
            job.future.set_result([next(found) for _ in job.texts])

    def _run(self, model: TextModel, texts: Sequence[str]) -> list[Vectors]:
        """Vectors of *texts*: each distinct text that is not cached yet goes through the model once."""
        known = self._cached(dict.fromkeys(texts))
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            vectors = model.embed_views(missing)
            known.update(zip(missing, vectors, strict=True))
            self._remember(zip(missing, vectors, strict=True))
        return [known[text] for text in texts]

    # --- cache ------------------------------------------------------------------------------------------------------

    def _fill_from_cache(self, texts: Sequence[str], vectors: Vectors) -> list[int]:
        """Write cached vectors into their rows of *vectors*; the indices of the others."""
        known = self._cached(texts)
        missing = []
        for i, text in enumerate(texts):
            if text in known:
                vectors[i] = known[text]
            else:
                missing.append(i)
        return missing

    def _cached(self, texts: Iterable[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        with self._cache_lock:
            for text in texts:
                if text in self._cache:
                    self._cache.move_to_end(text)
                    found[text] = self._cache[text]
        return found

    def _remember(self, pairs: Iterable[tuple[str, Vectors]]) -> None:
        with self._cache_lock:
            for text, vector in pairs:
                self._cache[text] = vector.copy()
                self._cache.move_to_end(text)
            while len(self._cache) > self._limits.cache_size:
                self._cache.popitem(last=False)

    # --- model ------------------------------------------------------------------------------------------------------

    def _loaded(self) -> TextModel:
        if self._model is None:
            raise NotReady("the encoder is still loading")
        return self._model

    def _load_once(self) -> TextModel:
        with self._load_lock:
            if self._model is None:
                self._model = self._load()
                self._id = self._model.encoder_id
            return self._model


def _clip(text: str, max_chars: int) -> str:
    """The end of *text*, as valid Unicode: a lone surrogate, which JSON can carry, becomes a question mark."""
    return text[-max_chars:].encode("utf-8", "replace").decode()
