"""Skills picked from a closed menu by a language model: the expert selection of MEXA (arXiv 2506.17113), by any registered expert.

The model reads the known skills, grouped by category and each with an id (A1, A2, B1), and answers with ids only. What it answers
besides is not guessed at: an answer without a known id, a refusal for one, is asked again once, and then the query is annotated by
similarity. Each call counts against the request's ``max_calls``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np

from domain.chat import Message
from domain.plan import Candidate, ExpertFailure, Outcome
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import RoutingQuery
from domain.skills import SkillMatch
from routers.annotators import Annotation, Annotator, fell_back, majority_category
from routers.expert_calls import TIMEOUT_S, Asking, Completes, Unusable, helper
from routers.index_holder import RoutingIndex
from routers.options import SkillsOptions
from routers.question_index import TextEncoder
from routers.skill_space import Floats

MAX_LISTED = 60
"""Skills on one menu, those nearest to the query: more make prompts long and answers worse."""
_MAX_PICKED = 4
_TOO_MANY = 8
"""Whoever names so many has repeated the menu and chosen nothing."""
_MAX_TOKENS = 1024
"""Ids take a few; models that reason first take more."""
_OTHERS = "other skills"
_ID = re.compile(r"\b[A-Z]{1,2}[0-9]{1,2}\b")
_NONE = re.compile(r"\W*NONE\W*")

_PROMPT = """Which of these skills does one need to answer the question below?

{menu}

Question: {question}

Reply with the ids of one to three skills and nothing else, the most important first, for example: {example}
Do not answer the question. If none of the skills fits it, reply: NONE"""
_AGAIN = "That was no id of the list. Reply with ids from the list and nothing else, for example: {example}"


@dataclass(frozen=True, slots=True)
class Menu:
    """Skills by id, in the order in which they are listed."""

    skills: Mapping[str, str]
    text: str

    @classmethod
    def of(cls, by_category: Mapping[str, Sequence[str]], descriptions: Mapping[str, str]) -> Menu:
        """Categories are lettered, their skills numbered."""
        skills, lines = {}, []
        for number, (category, names) in enumerate(by_category.items()):
            letter = _letter(number)
            lines.append(f"{letter}. {category}")
            for place, name in enumerate(names, 1):
                skills[f"{letter}{place}"] = name
                told = f": {descriptions[name]}" if descriptions.get(name) else ""
                lines.append(f"{letter}{place} {name}{told}")
        return cls(skills, "\n".join(lines))


class MenuAnnotator:
    """Asks ``options.menu_expert``; *fallback* decides when that may not be called, fails, or makes no choice twice."""

    def __init__(self, workers: Completes, encoder: TextEncoder, fallback: Annotator, *, timeout_s: float = TIMEOUT_S) -> None:
        self._workers, self._encoder, self._fallback, self._timeout_s = workers, encoder, fallback, timeout_s
        self._categories: tuple[RoutingIndex, Mapping[str, str]] | None = None

    async def annotate(self, query: RoutingQuery, snapshot: RegistrySnapshot, index: RoutingIndex, options: SkillsOptions) -> Annotation:
        """One call, or two, after the fallback's annotation, which finds the text, the neighbours and the category."""
        by_embedding = await self._fallback.annotate(query, snapshot, index, options)
        if not by_embedding.text or not index.skills:
            return by_embedding
        expert = helper(options.menu_expert, query, snapshot, role="menu", num_calls=1)
        if isinstance(expert, Unusable):
            return fell_back(by_embedding, expert.why)
        similarities = await self._similarities(by_embedding.text, index)
        menu = self._menu(similarities, index, snapshot)
        asking = Asking(self._workers, expert, query, timeout_s=self._timeout_s)
        may_ask_again = query.max_calls is None or query.max_calls > 2
        outcomes, picked = await _choice(asking, menu, by_embedding.text, query.seed, may_ask_again=may_ask_again)
        by_embedding = replace(by_embedding, calls=tuple(outcomes))
        if picked is None:
            return fell_back(by_embedding, f"the menu expert {expert.id!r} made no choice ({_problem(outcomes)})")
        matches = [SkillMatch(name, float(similarities[index.skills.index(name)]), 1 / len(picked)) for name in picked]
        return replace(
            by_embedding,
            skills=tuple(matches),
            similarity=max((match.similarity for match in matches), default=by_embedding.similarity),
            category=majority_category(by_embedding.neighbours, matches) or self._category_of(matches, index),
            source="menu",
            notes=(f"{expert.id} picked {', '.join(picked)} of {len(menu.skills)} skills" if picked else f"{expert.id} picked none",),
        )

    async def _similarities(self, text: str, index: RoutingIndex) -> Floats:
        """(skills,) of the text as it is read; encoded once already, so it costs no encoding."""
        compared, _ = index.compare(await self._encoder.encode([text]))
        similarities: Floats = compared[0]
        return similarities

    def _menu(self, similarities: Floats, index: RoutingIndex, snapshot: RegistrySnapshot) -> Menu:
        categories = self._categories_of(index)
        listed = sorted(np.argsort(-similarities, kind="stable")[:MAX_LISTED].tolist())
        by_category: dict[str, list[str]] = {}
        for number in listed:
            name = index.skills[number]
            by_category.setdefault(categories.get(name, _OTHERS), []).append(name)
        return Menu.of(by_category, snapshot.skills)

    def _category_of(self, matches: Sequence[SkillMatch], index: RoutingIndex) -> str | None:
        return self._categories_of(index).get(matches[0].skill) if matches else None

    def _categories_of(self, index: RoutingIndex) -> Mapping[str, str]:
        """Skill to the category that most of its questions have; counted once for each index."""
        if self._categories is None or self._categories[0] is not index:
            counts: dict[str, Counter[str]] = {}
            for question in index.questions.questions:
                for label in question.labels if question.category else ():
                    counts.setdefault(label, Counter())[question.category or ""] += 1
            self._categories = (index, {skill: count.most_common(1)[0][0] for skill, count in counts.items()})
        return self._categories[1]


async def _choice(asking: Asking, menu: Menu, question: str, seed: int, *, may_ask_again: bool) -> tuple[list[Outcome], list[str] | None]:
    """The calls that were made, and the skills that were picked; None when no choice was understood."""
    example = ", ".join(list(menu.skills)[:2])
    messages: tuple[Message, ...] = ({"role": "user", "content": _PROMPT.format(menu=menu.text, question=question, example=example)},)
    outcomes: list[Outcome] = []
    for _ in range(1 + may_ask_again):
        outcome = await asking.ask(messages, temperature=0.0, max_tokens=_MAX_TOKENS, seed=seed)
        outcomes.append(outcome)
        if isinstance(outcome, ExpertFailure):  # the workers have tried again already
            return outcomes, None
        picked = parse_choice(outcome.text, menu.skills)
        if picked is not None:
            return outcomes, picked
        messages += ({"role": "assistant", "content": outcome.text}, {"role": "user", "content": _AGAIN.format(example=example)})
    return outcomes, None


def parse_choice(text: str, skills: Mapping[str, str]) -> list[str] | None:
    """The skills whose ids *text* names, each once, in its order; empty when it says NONE, None when it makes no choice."""
    upper = text.upper()
    if _NONE.fullmatch(upper):
        return []
    found = [skills[name] for name in dict.fromkeys(_ID.findall(upper)) if name in skills]
    return found[:_MAX_PICKED] if 0 < len(found) < _TOO_MANY else None


def _problem(outcomes: Sequence[Outcome]) -> str:
    last = outcomes[-1]
    return f"it said {quoted(last.text)}" if isinstance(last, Candidate) else last.message


def _letter(number: int) -> str:
    """A to Z, then AA to ZZ."""
    return ascii_uppercase[number] if number < 26 else ascii_uppercase[number // 26 - 1] + ascii_uppercase[number % 26]
