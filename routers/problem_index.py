"""Which solved problems are like a question: by the words that they share and by their meaning, fused.

BM25 (Robertson and Zaragoza 2009; the library is bm25s, arXiv 2407.03618) finds what names the same things, the encoder what means the
same. Their scores cannot be compared, so their ranks are fused: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
Neither says whether the best of them is like the question at all; the cosine does, so what lies below a floor is never found.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domain.memory import MAX_PROBLEM_CHARS, Demonstration, SolvedProblem
from routers.skill_space import Floats

FUSION_K = 60
"""The constant of reciprocal rank fusion, as published: how little the first ranks are preferred."""
_WORD = re.compile(r"\w+")
"""Numbers and single letters count: of problems they are often what matters."""


def words_of(text: str) -> list[str]:
    """The words of *text* as BM25 compares them."""
    return _WORD.findall(text.casefold())


class ProblemIndex:
    """The solved problems of one tenant. Immutable. At a thousand problems a search takes about half a millisecond."""

    def __init__(self, problems: Sequence[SolvedProblem], vectors: Floats) -> None:
        """*vectors* (n, d) are unit vectors, row by row theirs."""
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG, whatever the service's level is
        self.problems = tuple(problems)
        self._vectors = vectors
        corpus = [words_of(problem.question) for problem in problems]
        self._bm25: Any = None
        if any(corpus):  # of problems without any word there is no mean length
            self._bm25 = bm25s.BM25(method="lucene")
            self._bm25.index(corpus, show_progress=False)

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of a question's vector that this one can be searched with."""
        return self._vectors.shape[1:]

    def search(self, question: str, vector: Floats, *, limit: int, min_similarity: float) -> tuple[Demonstration, ...]:
        """The *limit* problems that are most like *question* (d,), best first; none whose cosine is below *min_similarity*.

        Of equally good ones the one that was kept later stands first.
        """
        if not self.problems or limit <= 0:
            return ()
        cosines = self._vectors @ vector
        near = np.flatnonzero(cosines >= min_similarity).tolist()
        fused = fuse([_ranks(cosines, near), _ranks(self.shared_words(question), near, above=0.0)])
        order = sorted(near, key=lambda row: (-fused[row], -self.problems[row].sequence))
        return tuple(
            Demonstration(problem.id, problem.question, problem.answer, float(cosines[row]))
            for row in order[:limit]
            for problem in (self.problems[row],)
        )

    def shared_words(self, question: str) -> Floats:
        """(n,) BM25 scores; 0 of a problem that shares no word. Of a question that is longer than any problem its end counts, as for the
        encoder: comparing megabytes would take seconds, in which nobody else is answered."""
        words = words_of(question[-MAX_PROBLEM_CHARS:])
        if self._bm25 is None or not words:
            return np.zeros(len(self.problems), np.float32)
        scores: Floats = self._bm25.get_scores(words)
        return scores


def fuse(rankings: Sequence[Mapping[int, int]]) -> Mapping[int, float]:
    """What reciprocal rank fusion makes of *rankings*, each from item to rank, from 1: an item's sum of 1 / (60 + rank). An item that a
    ranking leaves out gets nothing from it."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for item, rank in ranking.items():
            fused[item] = fused.get(item, 0.0) + 1.0 / (FUSION_K + rank)
    return fused


def _ranks(scores: Floats, rows: Sequence[int], *, above: float | None = None) -> dict[int, int]:
    """*rows* by rank, without those that have no more than *above*. Equal scores have one rank, so that the other ranking decides."""
    kept = sorted((row for row in rows if above is None or scores[row] > above), key=lambda row: -float(scores[row]))
    ranks: dict[int, int] = {}
    for place, row in enumerate(kept):
        before = kept[place - 1] if place else None
        ranks[row] = ranks[before] if before is not None and scores[before] == scores[row] else place + 1
    return ranks
