"""Skills named by a language model: the keyword step of Symbolic-MoE (arXiv 2503.05641), by any registered expert.

The model is asked five times at temperature 0.7; keywords of at most 20 characters that come more than once are kept and
mapped to the nearest known skill. Unlike in the paper's code, a keyword that is near to no skill stays unknown. The five calls
count against the request's ``max_calls``; a request that cannot make them and one more is annotated by similarity.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from domain.chat import Message
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertFailure, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingQuery
from domain.skills import SkillMatch
from routers.annotators import Annotation, Annotator, fell_back, majority_category
from routers.expert_calls import TIMEOUT_S, Asking, Completes, Unusable, helper
from routers.index_holder import RoutingIndex
from routers.options import SkillsOptions
from routers.question_index import TextEncoder

NUM_SAMPLES = 5
_TEMPERATURE = 0.7
_MAX_TOKENS = 4096
_MAX_KEYWORD_CHARS = 20
_MIN_NAME_COSINE = 0.42
"""Between a keyword and a skill's name. With the zoo's names, words of other fields reach at most 0.38 ("music"), and words
of the same field 0.44 and more ("parity" and "even and odd", "periodic table" and "atomic numbers")."""

_PROMPT = """What are the core knowledge, subjects or skills needed to solve this problem? List 2-5 keywords separated in comma. \
Example keywords: psychology, virology, behavioral theory, microbiology, diplomacy, political science, property law, finance, business.
Give ONLY the keywords, no other words or explanation. Follow this format: Keywords: <keyword1>, <keyword2>...

Problem: {question}"""


class KeywordAnnotator:
    """Asks ``options.keyword_expert``; when that fails or costs too many calls, *fallback* decides and the annotation says so."""

    def __init__(self, workers: Completes, encoder: TextEncoder, fallback: Annotator, *, timeout_s: float = TIMEOUT_S) -> None:
        self._workers = workers
        self._encoder = encoder
        self._fallback = fallback
        self._timeout_s = timeout_s

    async def annotate(self, query: RoutingQuery, snapshot: RegistrySnapshot, index: RoutingIndex, options: SkillsOptions) -> Annotation:
        """``NUM_SAMPLES`` calls at once, and the fallback's annotation beside them for neighbours and category."""
        by_embedding = await self._fallback.annotate(query, snapshot, index, options)
        expert = helper(options.keyword_expert, query, snapshot, role="keyword", num_calls=NUM_SAMPLES)
        if isinstance(expert, Unusable):
            return fell_back(by_embedding, expert.why)
        outcomes = await self._samples(expert, query, by_embedding.text)
        by_embedding = replace(by_embedding, calls=tuple(outcomes))
        texts = [outcome.text for outcome in outcomes if isinstance(outcome, Candidate)]
        if len(texts) < 2:
            failure = next((outcome.message for outcome in outcomes if isinstance(outcome, ExpertFailure)), "no answer")
            return fell_back(by_embedding, f"the keyword expert {expert.id!r} gave {len(texts)} of {NUM_SAMPLES} answers ({failure})")
        agreed = agreed_keywords([parse_keywords(text) for text in texts])
        if not agreed:
            return fell_back(by_embedding, f"the samples of the keyword expert {expert.id!r} share no keyword")
        skills, unknown = await self._map(agreed, index)
        notes = (f"{expert.id} named {', '.join(agreed)}", *((f"no known skill is near {', '.join(unknown)}",) if unknown else ()))
        return replace(
            by_embedding,
            skills=skills,
            similarity=skills[0].similarity if skills else by_embedding.similarity,
            category=majority_category(by_embedding.neighbours, skills) or (by_embedding.category if skills else None),
            source="llm",
            notes=notes,
        )

    async def _samples(self, expert: ExpertCard, query: RoutingQuery, text: str) -> list[Outcome]:
        """One outcome for each sample of the keywords of *text*."""
        messages: tuple[Message, ...] = ({"role": "user", "content": _PROMPT.format(question=text)},)
        asking = Asking(self._workers, expert, query, timeout_s=self._timeout_s)

        async def ask(number: int) -> Outcome:
            return await asking.ask(messages, temperature=_TEMPERATURE, max_tokens=_MAX_TOKENS, seed=query.seed + number)

        return list(await asyncio.gather(*(ask(number) for number in range(NUM_SAMPLES))))

    async def _map(self, agreed: dict[str, int], index: RoutingIndex) -> tuple[tuple[SkillMatch, ...], list[str]]:
        """Keywords to the skills whose names are nearest, weighted by how often they were named; and those near to none."""
        votes: dict[str, int] = {}
        cosines: dict[str, float] = {}
        unknown: list[str] = []
        for keyword, vector in zip(agreed, await self._encoder.encode(list(agreed)), strict=True):
            nearest = index.questions.nearest_name(vector)
            if nearest is None or nearest[1] < _MIN_NAME_COSINE:
                unknown.append(keyword)
                continue
            skill, cosine = nearest
            votes[skill] = votes.get(skill, 0) + agreed[keyword]
            cosines[skill] = max(cosine, cosines.get(skill, -1.0))
        total = sum(votes.values())
        ranked = sorted(votes, key=lambda skill: (-votes[skill], -cosines[skill]))
        return tuple(SkillMatch(skill, cosines[skill], votes[skill] / total) for skill in ranked), unknown


def parse_keywords(text: str) -> list[str]:
    """The keywords of one answer: what follows the last ``Keywords:``, split at commas, lower case, without dots."""
    _, _, listed = text.rpartition("Keywords:")
    keywords = (keyword.replace(".", "").strip().lower() for keyword in listed.split(","))
    return [keyword for keyword in keywords if keyword]


def agreed_keywords(samples: Sequence[Sequence[str]]) -> dict[str, int]:
    """Keywords of at most 20 characters that more than one sample names, with the number of samples, most often first."""
    counts = Counter(keyword for sample in samples for keyword in dict.fromkeys(sample) if len(keyword) <= _MAX_KEYWORD_CHARS)
    return {keyword: count for keyword, count in counts.most_common() if count > 1}
