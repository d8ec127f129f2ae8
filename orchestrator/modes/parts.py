"""What modes of several stages have in common: their calls, what is shown to whom, and who stands in for a last call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from domain.chat import Message
from domain.errors import ExpertProtocolError, InvalidRequest
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.aggregation.base import AggregationContext
from orchestrator.aggregation.fallback import instead_of, is_answer
from orchestrator.aggregation.material import fits, room_for, shown_text, told_cut, trimmed, wants_json
from orchestrator.aggregation.prompts import COMPACT, answer_text, fuse_messages, with_note
from orchestrator.aggregation.readers import reader_for
from orchestrator.modes.base import Nobody, SoFar, Steps, Told, Write
from orchestrator.planner import aggregator_call, candidate_deadline, expert_params, repeated, within_effort
from orchestrator.prompts import Block, fenced, instructions

_LAST_ONLY = (
    "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "n", "logprobs", "top_logprobs",
)  # fmt: skip
"""Request fields that shape the answer, not the work on it: only the last call sees them."""


def experts_of(context: AggregationContext) -> list[ExpertCard]:
    """The selected experts, best first, each once."""
    return [context.snapshot.experts[expert_id] for expert_id in dict.fromkeys(context.decision.selected)]


def one_choice_only(context: AggregationContext, mode: str) -> None:
    """Raise ``InvalidRequest`` where several choices are asked of a mode that makes one."""
    if (context.request.params.get("n") or 1) > 1:
        raise InvalidRequest(f"n: the mode {mode} makes one choice; leave n out, or ask a model by name", param="n")


def writer_of(context: AggregationContext) -> tuple[ExpertCard, str]:
    """Who writes from what others have said, and why: the best measured reader, else the best-scored expert."""
    reader, why = reader_for(context)
    if reader is not None:
        return reader, why
    best = experts_of(context)[0]
    return best, f"{why}, so the best-scored expert writes, {best.id}"


def draft_call(context: AggregationContext, card: ExpertCard, messages: Sequence[Message], *, sample: int = 0) -> ExpertCall:
    """An attempt at the question by *card*; *sample* counts those that it has made before."""
    request = context.request
    params = {name: value for name, value in expert_params(card, request).items() if name not in _LAST_ONLY}
    if sample:
        params |= repeated(params, request, sample)
    deadline = candidate_deadline(context)
    call = ExpertCall(card, tuple(messages), params, deadline, request.id, CallRole.CANDIDATE, again=context.again)
    return within_effort(call, request)


def helper_call(
    context: AggregationContext, card: ExpertCard, template: str, blocks: Sequence[Block], *, max_tokens: int | None = None, **fields: str
) -> tuple[ExpertCall, str]:
    """A call whose words are for other experts, with the instructions *template* about *blocks*; and what of them was cut."""
    system = instructions(template, context.strategy.prompts, **fields)
    shown, told = _within(context, card, (), system, blocks)
    params = {**card.sampling} | ({} if max_tokens is None else {"max_tokens": max_tokens})
    messages: tuple[Message, ...] = ({"role": "system", "content": system}, {"role": "user", "content": fenced(shown)})
    return ExpertCall(card, messages, params, context.deadline, context.request.id, CallRole.STEP, again=context.again), told


def reading(
    context: AggregationContext, card: ExpertCard, template: str, blocks: Sequence[Block], **fields: str
) -> tuple[tuple[Message, ...], str]:
    """The conversation for *card* with the instructions *template* about *blocks*; and what of them was cut.

    Small experts that cannot follow instructions (``aggregation_prompt: compact``) get the blocks as numbered lines.
    """
    messages = context.request.messages
    if card.aggregation_prompt == COMPACT:
        return fuse_messages(messages, [block.text for block in blocks], COMPACT), ""
    system = instructions(template, context.strategy.prompts, **fields)
    shown, told = _within(context, card, messages, system, blocks)
    return with_note(messages, f"{system}\n\n{fenced(shown)}" if shown else system), told


def _within(
    context: AggregationContext, card: ExpertCard, messages: Sequence[Message], system: str, blocks: Sequence[Block]
) -> tuple[list[Block], str]:
    texts = [block.text for block in blocks]
    shown, cut = trimmed(texts, room_for(card, context.request, messages, system))
    told = told_cut([block.title for block in blocks], texts, shown, cut, card.id)
    return [replace(block, text=text) for block, text in zip(blocks, shown, strict=True)], told


def said_by(candidate: Candidate) -> str:
    """What others may see of *candidate*."""
    return shown_text(answer_text(candidate))


def answers_among(outcomes: Sequence[Outcome]) -> list[Candidate]:
    """Those that say something."""
    return [outcome for outcome in outcomes if isinstance(outcome, Candidate) and is_answer(outcome)]


def failures_among(outcomes: Sequence[Outcome]) -> tuple[ExpertFailure, ...]:
    """Those that failed, and those that answered nothing, as failures."""
    return tuple(
        outcome
        if isinstance(outcome, ExpertFailure)
        else ExpertFailure(outcome.expert_id, ExpertProtocolError.code, "it answered nothing", outcome.latency_s)
        for outcome in outcomes
        if not is_answer(outcome)
    )


def alone(context: AggregationContext, mode: str, why: str, stage: int) -> Steps:
    """The best-scored expert answers the question by itself, since *why*."""
    best = experts_of(context)[0]
    call = replace(aggregator_call(context, best, tuple(context.request.messages)), role=CallRole.CANDIDATE)
    by, why = f"{mode}:{best.id} (fallback)", f"{why}, so the best-scored expert answers alone, {best.id}"
    (written,) = yield Write(call, by, why, stage, wait="experts")
    return Told(written, by, why) if isinstance(written, Candidate) else Nobody(failures_among([written]))


def best_so_far(context: AggregationContext, drafts: Sequence[Candidate], by: str, why: str) -> SoFar | None:
    """The best of *drafts*, best first, for when nobody else can be asked; None where none is what was asked for."""
    fitting = [draft for draft in drafts if fits(context.request, draft)]
    if not fitting:
        return None

    def so_far(because: str) -> Told:
        return Told(fitting[0], f"{by} (fallback)", f"{why}; {because}, so what {fitting[0].expert_id} had answered is told")

    return so_far


def last_or_best(context: AggregationContext, written: Outcome, drafts: Sequence[Candidate], by: str, why: str) -> Told | Nobody:
    """What the last call has *written*; the best of *drafts* where that is no answer to what was asked."""
    if isinstance(written, Candidate) and fits(context.request, written):
        return Told(written, by, why, is_own=False)
    fitting = [draft for draft in drafts if fits(context.request, draft)]
    if fitting:
        best, instead = instead_of(written, fitting)
        if is_answer(written):
            instead = f"it answered no JSON, so the best-scored candidate that did stands in, {best.expert_id}"
        return Told(best, f"{by} (fallback)", f"{why}; {instead}")
    if isinstance(written, Candidate) and (is_answer(written) or not wants_json(context.request)):
        return Told(written, by, why, is_own=False)  # as of one expert alone
    return Nobody(failures_among([written]))
