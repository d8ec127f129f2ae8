"""Multiple choice: what experts hold each option to be worth, averaged."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from domain.chat import Choice, Chunk, RequestOptions
from domain.experts import Capability
from domain.plan import Candidate, ExpertCall
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.aggregation.option_probabilities import option_probabilities
from orchestrator.answer import Answer
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.unit.orchestrator.test_pipeline import ask

CHOICE = Strategy("s", pick=PickRule("top_k", 5), aggregator="weighted_vote", mode_options={"weights": "probability"})
TELLS = frozenset({Capability.LOGPROBS})


def token(text: str, **shares: float) -> dict[str, Any]:
    """A token of OpenAI's logprobs with its alternatives; keys are tokens, ``_B`` stands for one with a space before it."""
    alternatives = [{"token": name.replace("_", " "), "logprob": math.log(share)} for name, share in shares.items()]
    own = next((one["logprob"] for one in alternatives if one["token"] == text), math.log(0.5))
    return {"token": text, "logprob": own, "top_logprobs": alternatives}


def said(text: str, *tokens: dict[str, Any]) -> Candidate:
    return Candidate("x", (Choice({"role": "assistant", "content": text}, logprobs={"content": list(tokens)}),))


def test_shares_are_those_of_letters_at_the_token_that_states_the_option() -> None:
    answer = said("B", token("B", B=0.6, A=0.2, The=0.2))

    assert option_probabilities(answer) == pytest.approx({"b": 0.75, "a": 0.25})


def test_a_letter_is_one_however_its_tokens_are_spelled() -> None:
    answer = said("(B)", token("(B", **{"(B": 0.4, "_B": 0.2, "B": 0.2, "A": 0.2}), token(")"))

    assert option_probabilities(answer) == pytest.approx({"b": 0.8, "a": 0.2})


def test_letters_of_another_case_are_other_words() -> None:
    """Where an option could have been said, "a" is an article."""
    assert option_probabilities(said("B", token("B", B=0.5, a=0.4, A=0.1))) == pytest.approx({"b": 5 / 6, "a": 1 / 6})


def test_the_last_time_that_the_letter_is_said_counts() -> None:
    """As in thoughts that come before it."""
    answer = said("<think>B?</think>B", token("B", B=0.5, C=0.5), token("</think>"), token("B", B=0.9, C=0.1))

    assert option_probabilities(answer) == pytest.approx({"b": 0.9, "c": 0.1})


@pytest.mark.parametrize(
    "answer",
    [
        said("Paris", token("Paris", Paris=1.0)),
        said("B", token("B.)Paris", B=1.0)),
        said("B"),
        said("", token("B", B=1.0)),
        said("7", token("7", **{"7": 1.0})),
        Candidate("x", (Choice({"role": "assistant", "content": "B"}),)),
        Candidate("x", (Choice({"role": "assistant", "content": "B"}, logprobs={"content": "B"}),)),
        Candidate("x", (Choice({"role": "assistant", "content": "B"}, logprobs=["B"]),)),
        said("B", {"token": "B", "logprob": "high", "top_logprobs": 5}),
        said("B", {"token": "B", "logprob": float("nan")}),
        said("B", {"token": "B", "logprob": -math.inf, "top_logprobs": [{"token": "B", "logprob": None}]}),
    ],
)
def test_what_cannot_be_read_is_none(answer: Candidate) -> None:
    assert option_probabilities(answer) is None


def test_a_token_without_alternatives_is_sure_of_itself() -> None:
    assert option_probabilities(said("B", {"token": "B", "logprob": -0.1})) == {"b": 1.0}


class Workers:
    """Experts that answer a letter, and tell what they held the others to be worth when they are asked."""

    def __init__(self, shares: Mapping[str, Mapping[str, float]]) -> None:
        self._shares = shares
        self.calls: list[ExpertCall] = []

    async def complete(self, call: ExpertCall) -> Candidate:
        self.calls.append(call)
        shares = self._shares[call.expert.id]
        letter = max(shares, key=lambda one: shares[one])
        logprobs = {"content": [token(letter, **shares)]} if call.params.get("logprobs") else None
        return Candidate(call.expert.id, (Choice({"role": "assistant", "content": letter}, logprobs=logprobs),))

    def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        raise AssertionError(f"nothing streams here: {call.expert.id}")


class World:
    def __init__(self, shares: Mapping[str, Mapping[str, float]], *, silent: str = "") -> None:
        cards = [card(name, capabilities=frozenset() if name in silent else TELLS) for name in shares]
        self.workers, self.sink = Workers(shares), KeptTraces()
        self.orchestrator = Orchestrator(
            directory=FakeDirectory(cards, strategies=[CHOICE]),
            routers={"skills": FakeRouter(*shares)},
            workers=self.workers,
            sinks=[self.sink],
        )

    async def ask(self, params: Mapping[str, Any] | None = None, **options: Any) -> Answer:
        return await self.orchestrator.run(ask("consilium/s", params=params or {}, options=RequestOptions(**options)))

    @property
    def reason(self) -> str:
        return str(self.sink.traces[-1].aggregator_reason)


TORN = {"a": {"A": 0.5, "B": 0.45, "C": 0.05}, "b": {"C": 0.5, "B": 0.45, "A": 0.05}, "c": {"B": 0.9, "A": 0.05, "C": 0.05}}
"""Each says another letter; two are torn between theirs and B."""


async def test_experts_that_are_torn_count_for_both_options() -> None:
    world = World(TORN)
    answer = await world.ask()

    assert answer.choices[0].text == "B"
    assert world.reason == "A 0.20, C 0.20, B 0.60 by the mean probability of 3 experts (c said B)"
    assert answer.trace.aggregator == "weighted_vote"


async def test_only_what_somebody_has_said_is_told() -> None:
    """B has the highest mean, and nobody's words say so."""
    world = World({"a": {"A": 0.51, "B": 0.49}, "b": {"C": 0.5, "B": 0.45, "A": 0.05}})

    assert (await world.ask()).choices[0].text == "A"


async def test_where_one_tells_no_probabilities_scores_weigh_and_it_is_said_whose_are_missing() -> None:
    world = World(TORN, silent="c")

    assert (await world.ask()).choices[0].text == "A"
    assert world.reason.startswith("c told no probabilities of options, so 0.90 of 2.40 by score agree (a)")
    assert ["logprobs" in call.params for call in world.workers.calls] == [True, True, False]


async def test_the_caller_does_not_see_what_it_has_not_asked_for() -> None:
    assert (await World(TORN).ask()).choices[0].logprobs is None


async def test_a_caller_who_asks_for_log_probabilities_gets_its_own() -> None:
    world = World(TORN)
    answer = await world.ask({"logprobs": True, "top_logprobs": 3})

    assert answer.choices[0].logprobs is not None
    assert {call.params["top_logprobs"] for call in world.workers.calls} == {3}


@pytest.mark.parametrize("aggregator", ["vote", "first"])
async def test_another_aggregator_asks_for_none(aggregator: str) -> None:
    world = World(TORN)
    await world.ask(aggregator=aggregator)

    assert not any("logprobs" in call.params for call in world.workers.calls)


async def test_one_expert_alone_is_not_asked_either() -> None:
    world = World({"a": TORN["a"]})
    answer = await world.ask(mode="panel")

    assert answer.choices[0].text == "A"
    assert "logprobs" not in world.workers.calls[0].params


async def test_contrast_leaves_them_out_as_well() -> None:
    world = World({**TORN, "weak": {"C": 0.9, "A": 0.1}})
    answer = await world.ask(mode="contrast", mode_options={"weak_expert": "weak", "weights": "probability"}, deny=())

    assert answer.choices[0].logprobs is None
