"""From what the registry holds to a comparison of strategies on real answers: for the command line and for pages.

Works on what the admin REST serves, so that it makes no difference where the service runs. Heavy to import.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.schemas.admin_answers import SERVED_OF_EXPERTS
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.skills import LabelledQuestion
from evaluation.answers.asking import Ask, Asker, Questioner, Way
from evaluation.answers.comparison import AnswersComparison, AnswersOptions, ExpertInfo
from evaluation.answers.judging import AskedJudge
from evaluation.answers.replies import Call, Reply, ReplyLog
from evaluation.outcomes.duplicates import drop_duplicates

Json = Mapping[str, Any]
_CHANGES_NOTHING = SERVED_OF_EXPERTS | {"description", "enabled"}
"""Of a card as it is served: what does not change its answers. The version is told beside what makes it."""


def chosen_cards(cards: Sequence[Json], wanted: Sequence[str] | None) -> list[Json]:
    """The candidates named by *wanted*, all enabled ones when None. Raises ``InvalidRequest`` with the nearest name."""
    able = {card["id"]: card for card in cards if card["enabled"] and "candidate" in card["roles"]}
    for name in wanted or ():
        if name not in able:
            raise InvalidRequest(f"there is no expert {name!r} that may answer alone; {did_you_mean(name, sorted(able))}")
    return [able[name] for name in dict.fromkeys(wanted or able)]


def judge_of(cards: Sequence[Json], expert: str, asker: Asker, log: ReplyLog) -> AskedJudge:
    """The judge named *expert*. Raises ``InvalidRequest`` with the nearest name."""
    able = {card["id"]: card for card in cards if card["enabled"]}
    if expert not in able:
        raise InvalidRequest(f"--judge: there is no expert {expert!r} that may be asked; {did_you_mean(expert, sorted(able))}")
    return AskedJudge(asker, log, expert, version_of(able[expert]), able[expert].get("sampling") or {})


@dataclass(frozen=True, slots=True)
class Known:
    """What the service knows, as the admin REST serves it."""

    cards: Sequence[Json]
    questions: Sequence[Json]
    profiles: Sequence[Json]
    recipes: Sequence[Json]
    aggregators: Sequence[Json]

    @classmethod
    async def read(cls, rows: Callable[[str], Awaitable[Sequence[Json]]]) -> Known:
        """*rows* gives every row of a list, by its name."""
        return cls(*[await rows(name) for name in ("experts", "questions", "profiles", "strategies", "aggregator-profiles")])

    @property
    def asked(self) -> list[str]:
        """The questions that the service was measured on."""
        return [row["question"] for row in self.questions]


def comparison_of(
    known: Known,
    kept: Sequence[LabelledQuestion],
    *,
    questioner: Questioner,
    candidates: Sequence[Json],
    strategies: Sequence[str] | None,
    options: AnswersOptions,
    settings: Mapping[str, Any],
    duplicates: Mapping[str, int],
    routers: Sequence[str] = (),
    judge: AskedJudge | None = None,
) -> AnswersComparison:
    """Of *strategies* (all enabled ones when None), and of ``auto`` with each of *routers*, on the questions *kept*."""
    whole = fingerprint([sorted(version_of(card) for card in known.cards), known.profiles, len(known.questions), known.aggregators])
    return AnswersComparison(
        questioner=questioner,
        questions=kept,
        experts=[info_of(card) for card in candidates],
        strategies=ways_of(known.recipes, strategies, routers, whole),
        aggregator=aggregator_of(known.cards, known.aggregators),
        others={card["id"]: info_of(card) for card in known.cards},
        profile=ranked(known.profiles, candidates),
        options=options,
        settings=settings,
        duplicates=duplicates,
        judge=judge,
    )


class ServiceAsker:
    """``evaluation.answers.asking.Asker``: over the API that everybody uses, so that what is measured is what is served.

    *post* asks for a chat completion; what it raises of *failures* is an answer that failed.
    """

    def __init__(self, post: Callable[[Json], Awaitable[Any]], failures: type[Exception]) -> None:
        self._post, self._failures = post, failures

    async def ask(self, ask: Ask) -> Reply:
        messages = [dict(message) for message in ask.messages]
        body = {**ask.params, "model": ask.model, "messages": messages, "consilium": {**ask.options, "explain": True}}
        began = time.monotonic()
        try:
            answer = await self._post(body)
            return reply_of(answer, (time.monotonic() - began) * 1000)
        except self._failures as failure:
            return Reply(error=str(failure), latency_ms=(time.monotonic() - began) * 1000)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return Reply(error=f"not a chat completion: {type(error).__name__}: {error}", latency_ms=(time.monotonic() - began) * 1000)


def info_of(card: Json) -> ExpertInfo:
    """A card as comparisons take it."""
    price = card.get("price") or {}
    return ExpertInfo(
        card["id"],
        version_of(card),
        price.get("prompt", 0.0) / 1e6,
        price.get("completion", 0.0) / 1e6,
        card.get("parameters_b"),
        card.get("aggregation_prompt", "moa"),
    )


def version_of(card: Json) -> str:
    """``version-fingerprint``: databases count versions each for themselves, so the content counts too."""
    content = {name: value for name, value in card.items() if name not in _CHANGES_NOTHING}
    return f"{card['version']}-{fingerprint(content)}"


def fingerprint(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def ways_of(recipes: Sequence[Json], wanted: Sequence[str] | None, routers: Sequence[str], whole: str) -> list[Way]:
    """A strategy's answer depends on everything that it may choose from: its version names that too."""
    able = {row["id"]: row for row in recipes if row.get("enabled", True)}
    for name in wanted or ():
        if name not in able:
            raise InvalidRequest(f"there is no strategy {name!r}; {did_you_mean(name, sorted(able))}")
    found = [Way(name, f"consilium/{name}", f"{fingerprint(able[name])}-{whole}") for name in dict.fromkeys(wanted or able)]
    return found + [
        Way(f"auto, {name}", "auto", f"{fingerprint(able.get('auto'))}-{whole}", options={"router": name, "pick": "top_k", "k": 1})
        for name in dict.fromkeys(routers)
    ]


def ranked(profiles: Sequence[Json], candidates: Sequence[Json]) -> dict[str, float] | None:
    """Measured accuracy of all candidates; None when somebody was never measured."""
    measured = {row["expert"]: row["overall"]["accuracy"] for row in profiles}
    ranked = {card["id"]: measured.get(card["id"]) for card in candidates}
    known = {expert: accuracy for expert, accuracy in ranked.items() if accuracy is not None}
    return known if len(known) == len(ranked) else None


def aggregator_of(cards: Sequence[Json], profiles: Sequence[Json]) -> ExpertInfo | None:
    """The best measured one of those that may aggregate; of unmeasured ones the first."""
    measured = {row["expert"]: row["overall"]["accuracy"] or 0.0 for row in profiles}
    able = [card for card in cards if card["enabled"] and "aggregator" in card["roles"]]
    return info_of(max(able, key=lambda card: measured.get(card["id"], -1.0))) if able else None


def unseen(asked: Sequence[LabelledQuestion], known: Sequence[str], near: float | None) -> tuple[list[LabelledQuestion], dict[str, int]]:
    """*asked* without repetitions and without what the service was measured on."""
    texts = [text_of(question) for question in asked]
    own = drop_duplicates(texts, near=near)
    seen = drop_duplicates([asked[number].question for number in own.kept], against=known, near=near)
    counts = {"exact": own.num_exact, "near": own.num_near, "measured_on_exact": seen.num_exact, "measured_on_near": seen.num_near}
    kept = [asked[own.kept[number]] for number in seen.kept]
    if not kept:
        raise InvalidRequest("every question is one that the service was measured on: there is nothing left to judge by")
    return kept, counts


def text_of(question: LabelledQuestion) -> str:
    """What makes it the same as another one."""
    return question.question + "\n".join(question.options)


def spread(questions: Sequence[LabelledQuestion], limit: int | None) -> Sequence[LabelledQuestion]:
    """At most *limit* of them, evenly."""
    if limit is None or limit >= len(questions):
        return questions
    return [questions[number * len(questions) // limit] for number in range(limit)]


def reply_of(answer: Mapping[str, Any], latency_ms: float) -> Reply:
    """A chat completion as comparisons take it. Raises ``LookupError``, ``TypeError``, ``ValueError`` or ``AttributeError`` for
    what is none."""
    choice = answer["choices"][0]
    told = answer.get("consilium") or {}
    calls = [call for call in told.get("calls", ()) if call.get("status") != "skipped"]
    experts = [call["expert"] for call in calls if call.get("role") == "candidate"]
    return Reply(
        text=str(choice["message"].get("content") or ""),
        calls=tuple(_call(call) for call in calls),
        latency_ms=latency_ms,
        expert=experts[0] if len(experts) == 1 and len(calls) == 1 else None,
        reasoning=str(choice["message"].get("reasoning_content") or ""),
        logprob=_mean_logprob((choice.get("logprobs") or {}).get("content") or ()),
    )


def _call(call: Mapping[str, Any]) -> Call:
    usage = call.get("usage") or {}
    prompt = int(usage.get("prompt_tokens") or 0)
    return Call(call["expert"], prompt + int(usage.get("completion_tokens") or 0), prompt)


def _mean_logprob(tokens: Sequence[Mapping[str, Any]]) -> float | None:
    values = [float(token["logprob"]) for token in tokens if isinstance(token.get("logprob"), int | float)]
    return math.fsum(values) / len(values) if values else None
