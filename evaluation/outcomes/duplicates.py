"""Questions that are there twice: the same, or nearly.

A router that has seen the test question is no router but a memory. Near duplicates are found by the overlap of their character
five-grams: candidates by MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3), each of them then compared exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NEAR = 0.9
"""Jaccard overlap of five-grams from which two questions are nearly one: a changed number in a story of forty words is over it,
in a bare sum it is not."""
_GRAM = 5
_MAX_CHARS = 20_000
"""Letters of a question that are compared; what agrees in so many is the same for this purpose."""
_NUM_HASHES = 128
_MAX_COMPARED = 64
"""Of a bucket, the newest questions that one is compared with. Questions from one template share buckets by the thousand."""

_U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Distinct:
    """What is left when duplicates are dropped."""

    kept: tuple[int, ...]
    num_exact: int = 0
    num_near: int = 0


def drop_duplicates(texts: Sequence[str], *, against: Sequence[str] = (), near: float | None = NEAR) -> Distinct:
    """Those of *texts*, by number, that are neither in *against* nor repeat an earlier one that is kept.

    Exact: equal up to Unicode form, case, punctuation and white space. *near* is the overlap in (0, 1] from which two count as one;
    None compares exactly only.
    """
    seen: set[str] = set()
    index = _NearIndex(near) if near is not None else None
    for text in against:
        plain = plain_text(text)
        if plain not in seen:
            seen.add(plain)
            if index is not None:
                index.add(index.grams(plain))
    kept, num_exact, num_near = [], 0, 0
    for number, text in enumerate(texts):
        plain = plain_text(text)
        if plain in seen:
            num_exact += 1
            continue
        if index is not None:
            grams = index.grams(plain)
            if index.has(grams):
                num_near += 1
                continue
            index.add(grams)
        seen.add(plain)
        kept.append(number)
    return Distinct(tuple(kept), num_exact, num_near)


def plain_text(text: str) -> str:
    """*text* in one Unicode form and case, without punctuation, with single spaces; operators between numbers are kept."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = " ".join(re.sub(r"[^\w\s+\-*/=<>^%]", " ", folded).split())
    return bare or " ".join(folded.split())


class _NearIndex:
    def __init__(self, near: float) -> None:
        self._near = near
        # Fewer rows a band find less similar pairs, and compare more: 8 rows miss one pair in 10,000 at 0.9, 4 rows at 0.7.
        self._rows = 8 if near >= 0.85 else 4
        rng = np.random.default_rng(20_250_301)
        self._factors: _U64 = rng.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets: _U64 = rng.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64)
        self._powers: _U64 = np.full(_GRAM, 0x9E3779B97F4A7C15, np.uint64).cumprod(dtype=np.uint64)
        self._kept: list[_U64] = []
        self._buckets: dict[bytes, list[int]] = {}

    def grams(self, plain: str) -> _U64:
        """The distinct five-grams of *plain* as hashes, sorted."""
        letters = np.frombuffer(plain[:_MAX_CHARS].ljust(_GRAM).encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(letters, _GRAM)
        mixed: _U64 = (windows * self._powers).sum(axis=1, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        return np.unique(mixed ^ (mixed >> np.uint64(29)))

    def has(self, grams: _U64) -> bool:
        """Whether one that was added overlaps enough."""
        compared: set[int] = set()
        for key in self._keys(grams):
            for number in self._buckets.get(key, ())[-_MAX_COMPARED:]:
                if number not in compared:
                    compared.add(number)
                    if self._overlap(grams, self._kept[number]) >= self._near:
                        return True
        return False

    def add(self, grams: _U64) -> None:
        for key in self._keys(grams):
            self._buckets.setdefault(key, []).append(len(self._kept))
        self._kept.append(grams)

    def _keys(self, grams: _U64) -> list[bytes]:
        hashes = grams[None, :] * self._factors[:, None] + self._offsets[:, None]
        signature = (hashes >> np.uint64(32)).min(axis=1).astype(np.uint32).reshape(-1, self._rows)
        return [band.to_bytes(1, "little") + row.tobytes() for band, row in enumerate(signature)]

    def _overlap(self, one: _U64, other: _U64) -> float:
        if min(len(one), len(other)) < self._near * max(len(one), len(other)):
            return 0.0
        shared = len(np.intersect1d(one, other, assume_unique=True))
        return shared / (len(one) + len(other) - shared)
