"""What a request may still use: every call is granted here, and every attempt of one, before it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domain.budget import UNBOUNDED, Budget
from domain.chat import Usage, text_of
from domain.errors import CallRefused
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.admission.estimate import MESSAGE_TOKENS, prompt_tokens

MIN_ANSWER_TOKENS = 16
"""A call whose answer could not have so many is not made; unless it asks for fewer itself."""
_PER_MILLION = 1e-6
_LENGTHS = ("max_completion_tokens", "max_tokens")
"""Request fields that bound an answer."""


@dataclass(frozen=True, slots=True)
class _Used:
    tokens: int
    price: float


class BudgetLedger:
    """Mutable; one for each request. Calls that are granted at once share what is left, with those that are known to come: their answers
    are bounded by it, so that even the longest do not exceed the budget. A prompt's tokens are estimated until the expert tells them."""

    def __init__(self, budget: Budget = UNBOUNDED, *, max_calls: int) -> None:
        self._budget, self._num_left, self._num_kept = budget, max_calls, 0
        self._is_bounded = budget.is_bounded
        self._tokens, self._price = 0, 0.0
        self.sequential_tokens = 0
        """Of answers that were waited for one after the other."""

    @property
    def num_left(self) -> int:
        """Calls that may still be made."""
        return self._num_left

    def again(self) -> bool:
        """Take one more attempt of a call that was granted; False when that would leave none for a call that is still to come."""
        if self._num_left <= self._num_kept:
            return False
        self._num_left -= 1
        return True

    def grant(
        self, calls: Sequence[ExpertCall], *, num_to_come: int = 0, beside: Sequence[ExpertCall] = ()
    ) -> Sequence[ExpertCall | ExpertFailure]:
        """*calls* as they may be made, the first ones first; a failure (``CallRefused``) in place of each that the budget has no room
        for. *num_to_come*: calls that follow these and that retries must leave room for. *beside*: calls that were granted before and still
        run; room is left for the longest answers that they may give."""
        self._num_kept = num_to_come
        if not self._is_bounded and len(calls) <= self._num_left:
            self._num_left -= len(calls)
            return calls
        granted, why = list(calls[: self._num_left]), "max_calls leaves no call"
        if self._is_bounded:
            used = self._used_with(beside)
            while granted and (missing := self._missing(granted, used)) is not None:
                granted.pop()
                why = missing
            granted = self._bounded(granted, used, num_to_come)
        self._num_left -= len(granted)
        refused = [ExpertFailure(call.expert.id, CallRefused.code, why, expert_at_fault=False) for call in calls[len(granted) :]]
        return [*granted, *refused]

    def ended(self, calls: Sequence[ExpertCall], outcomes: Sequence[Outcome]) -> None:
        """*calls*, which ran at once, have come to *outcomes*. One that was never made costs nothing."""
        longest = 0
        for call, outcome in zip(calls, outcomes, strict=True):
            if not isinstance(outcome, Candidate):
                self._num_left += not outcome.called
                continue
            usage = outcome.usage
            if self._is_bounded:
                usage = usage if usage.total_tokens else _estimated(call, outcome)
                self._tokens += usage.total_tokens
                price = call.expert.price
                self._price += _PER_MILLION * (price.prompt * usage.prompt_tokens + price.completion * usage.completion_tokens)
            longest = max(longest, usage.completion_tokens)
        self.sequential_tokens += longest

    def _used_with(self, beside: Sequence[ExpertCall]) -> _Used:
        """What is used up once *beside* have ended, at most."""
        tokens = sum(_prompt_of(call) + _longest_of(call) * _num_choices(call) for call in beside)
        return _Used(self._tokens + tokens, self._price + sum(_price_of(call, _longest_of(call)) for call in beside))

    def _missing(self, calls: Sequence[ExpertCall], used: _Used) -> str | None:
        """What leaves no room for *calls* together, for people."""
        budget, prompts = self._budget, sum(_prompt_of(call) for call in calls)
        needed = sum(min(MIN_ANSWER_TOKENS, answer_bound(call.params) or MIN_ANSWER_TOKENS) * _num_choices(call) for call in calls)
        if budget.max_tokens is not None and used.tokens + prompts + needed > budget.max_tokens:
            return f"max_tokens leaves {max(0, budget.max_tokens - used.tokens)} of {budget.max_tokens} tokens"
        if budget.max_sequential_tokens is not None:
            left = budget.max_sequential_tokens - self.sequential_tokens
            if left < max(min(MIN_ANSWER_TOKENS, answer_bound(call.params) or MIN_ANSWER_TOKENS) for call in calls):
                return f"max_sequential_tokens leaves {max(0, left)} of {budget.max_sequential_tokens} tokens"
        if budget.max_price is not None:
            least = sum(_price_of(call, MIN_ANSWER_TOKENS) for call in calls)
            if used.price + least > budget.max_price:
                return f"max_price leaves {max(0.0, budget.max_price - used.price):.6f} of {budget.max_price:g} US dollars"
        return None

    def _bounded(self, calls: Sequence[ExpertCall], used: _Used, num_to_come: int) -> list[ExpertCall]:
        """*calls* with answers as long as there is room for all of them, and for as long ones of those that come later; where that would
        be too short for an answer, as long as there is room now."""
        if not calls:
            return []
        room = self._room(calls, used, num_to_come)
        if room is not None and num_to_come and room < MIN_ANSWER_TOKENS:
            room = self._room(calls, used, 0)
        return list(calls) if room is None else [no_longer(call, room) for call in calls]

    def _room(self, calls: Sequence[ExpertCall], used: _Used, num_to_come: int) -> int | None:
        """Tokens for each answer; None where nothing bounds them."""
        budget, rooms = self._budget, list[float]()
        num_answers = sum(_num_choices(call) for call in calls) + num_to_come
        if budget.max_tokens is not None:
            rooms.append((budget.max_tokens - used.tokens - sum(_prompt_of(call) for call in calls)) / num_answers)
        if budget.max_sequential_tokens is not None:
            rooms.append(budget.max_sequential_tokens - self.sequential_tokens - (MIN_ANSWER_TOKENS if num_to_come else 0))
        if budget.max_price is not None and (a_token := sum(_price_of(call, 1) - _price_of(call, 0) for call in calls)) > 0:
            left = budget.max_price - used.price - sum(_price_of(call, 0) for call in calls)
            rooms.append(left / a_token * (num_answers - num_to_come) / num_answers)
        return int(min(rooms)) if rooms else None


def no_longer(call: ExpertCall, room: int) -> ExpertCall:
    """*call* with an answer of at most *room* tokens, where it might be longer."""
    asked = answer_bound(call.params)
    if asked is not None and asked <= room:
        return call
    if asked is None and _prompt_of(call) + room >= call.expert.context_length:  # its context bounds it more
        return call
    field = next((name for name in _LENGTHS if call.params.get(name) is not None), "max_tokens")
    return replace(call, params={**call.params, field: room})


def answer_bound(params: Mapping[str, Any]) -> int | None:
    """The longest answer that a call with *params* asks for, in tokens."""
    return next((length for name in _LENGTHS if isinstance(length := params.get(name), int)), None)


def _longest_of(call: ExpertCall) -> int:
    """The longest answer that the call may get, in tokens."""
    asked = answer_bound(call.params)
    return max(0, call.expert.context_length - _prompt_of(call)) if asked is None else asked


def _num_choices(call: ExpertCall) -> int:
    return int(call.params.get("n") or 1)


def _prompt_of(call: ExpertCall) -> int:
    tokens = sum(MESSAGE_TOKENS + prompt_tokens(text_of(message), call.expert.chars_per_token) for message in call.messages)
    tools = call.params.get("tools")
    return tokens + (prompt_tokens(str(tools), call.expert.chars_per_token) if tools else 0)


def _price_of(call: ExpertCall, num_answer_tokens: int) -> float:
    price = call.expert.price
    return _PER_MILLION * (price.prompt * _prompt_of(call) + price.completion * num_answer_tokens * _num_choices(call))


def _estimated(call: ExpertCall, outcome: Candidate) -> Usage:
    """Of an expert that tells no usage."""
    answer = sum(prompt_tokens(choice.text, call.expert.chars_per_token) for choice in outcome.choices)
    return Usage(_prompt_of(call), answer)
