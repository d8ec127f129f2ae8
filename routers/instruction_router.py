"""Instruction-first routing, after Glider (arXiv 2410.07172).

A small expert says in one sentence what kind of task the query is. That instruction is compared with what every expert is for
(global), the query itself with questions on which experts were measured (local); the score is ``α · global + (1 - α) · local``. The
paper's local part is learned for every token inside one model, which a service in front of whole models has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.plan import Candidate, Outcome
from domain.quoting import quoted, shortened
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from routers import pick
from routers.annotators import Annotator
from routers.expert_calls import TIMEOUT_S, Asking, Completes, Unusable, helper
from routers.explanation import how_selected, pick_object
from routers.index_holder import IndexHolder
from routers.instructions import Instructions, InstructionsRecipe, global_shares
from routers.model_keeper import Key, Made, ModelKeeper, Recipe
from routers.options import SkillsOptions, check_known
from routers.question_index import TextEncoder
from routers.ranking import rank
from routers.unroutable import fallback_expert, require_text

_MAX_TOKENS = 1024
"""An instruction takes thirty; models that reason first take more."""
_MAX_LETTERS = 400
_WAIT_SHARE = 0.5
"""Of the request's time, for what experts are for, when it is not read yet."""

_PROMPT = """Below is a question. Do not answer it. Describe in one sentence what kind of task it is, as an instruction to \
somebody who is to do many tasks of that kind: name the skill and the subject, and none of the details of this question.

Question: {question}

Instruction:"""


@dataclass(frozen=True, slots=True)
class InstructionOptions:
    """Settings of this router (``router_options``)."""

    instruction_expert: str | None = None
    """Which registered expert writes the instruction; needed."""
    alpha: float = 0.25
    """Weight of the instruction, in [0, 1]; the rest is the neighbours'. With good instructions more is better, with none less
    (``benchmarks/instruction_weight.py``)."""


def parse_instruction_options(values: Mapping[str, Any]) -> InstructionOptions:
    """Raises ``InvalidRequest`` naming the option."""
    check_known(values, [field.name for field in fields(InstructionOptions)], router="instruction")
    options = InstructionOptions(**values)
    if not isinstance(options.instruction_expert, str) or not options.instruction_expert:
        raise _invalid("instruction_expert", "must name the registered expert that writes the instruction")
    if isinstance(options.alpha, bool) or not isinstance(options.alpha, int | float) or not 0 <= options.alpha <= 1:
        raise _invalid("alpha", f"is {quoted(options.alpha)}, it must be a number from 0 to 1")
    return options


class InstructionRouter:
    """Makes one call. When that cannot be made or fails, the query stands for its instruction, and the decision says so."""

    name = "instruction"

    def __init__(
        self,
        workers: Completes,
        keeper: ModelKeeper,
        *,
        index_holder: IndexHolder,
        annotator: Annotator,
        encoder: TextEncoder,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """*annotator* reads conversations: which of the earlier turns belong to the query."""
        self._workers, self._keeper, self._timeout_s = workers, keeper, timeout_s
        self._index_holder, self._annotator, self._encoder = index_holder, annotator, encoder

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for wrong options, or none."""
        parse_instruction_options(options)

    def model_for(self, options: Mapping[str, Any]) -> tuple[Key, Recipe[Instructions]]:
        """What the keeper has to make: the same for all options. Raises ``InvalidRequest``."""
        parse_instruction_options(options)
        return self._key, InstructionsRecipe(self._encoder)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """1. read the query, 2. have its instruction written, 3. compare, mix, adjust, pick.

        Raises ``InvalidRequest`` for wrong options or a query without text, ``NotReady`` while it is not known what experts are for.
        """
        options = parse_instruction_options(query.options)
        pick.check(query.pick)
        require_text(query)
        made = await self._made(query)
        annotation = await self._annotator.annotate(query, snapshot, self._index_holder.index(), SkillsOptions())
        instruction, calls, notes = await self._instruction(query, snapshot, options, annotation.text)
        vectors = await self._encoder.encode([instruction or annotation.text, annotation.text])
        expert_ids = [card.id for card in query.experts]
        scored = _Scored.of(made.model, expert_ids, vectors[0], vectors[1], options.alpha)
        ranking = rank(query, np.array(scored.scores), scored.why)
        notes = (*annotation.notes, *notes)
        if annotation.text:
            selected = ranking.selected(query.pick, seed=query.seed)
            how = how_selected(selected, ranking.why_of(selected[0]), query.pick)
            task = f"The task is: {instruction}" if instruction else "The query is compared as it is"
            reason = f"{task.rstrip('.')}; {how}.{''.join(f' Note: {note}.' for note in notes)}"
        else:
            problem = "the query holds no text to compare"
            selected = (fallback_expert(query, expert_ids, problem),)
            reason = f"{selected[0]} is the strategy's fallback: {problem}."
        return RoutingDecision(
            router=self.name,
            selected=selected,
            considered=ranking.considered(selected),
            reason=reason,
            skills=annotation.skills,
            category=annotation.category,
            fallback=not annotation.text,
            others_fit=bool(annotation.text),
            detail={
                "instruction": instruction,
                "alpha": options.alpha,
                "with_context": annotation.with_context,
                "pick": pick_object(query.pick),
                "notes": list(notes),
            },
            calls=calls,
            vector=vectors[1].astype("<f2").tobytes() if annotation.text else None,
        )

    @property
    def _key(self) -> Key:
        return self.name, ""

    async def _made(self, query: RoutingQuery) -> Made[Instructions]:
        wait_s = _WAIT_SHARE * query.deadline.remaining_s if query.deadline else 0.0
        return await self._keeper.made(self._key, lambda: InstructionsRecipe(self._encoder), wait_s=wait_s)

    async def _instruction(
        self, query: RoutingQuery, snapshot: RegistrySnapshot, options: InstructionOptions, text: str
    ) -> tuple[str | None, tuple[Outcome, ...], tuple[str, ...]]:
        """The instruction, the call that was made for it, and what to note; None when there is none."""
        if not text:
            return None, (), ()
        expert = helper(options.instruction_expert, query, snapshot, role="instruction", num_calls=1)
        if isinstance(expert, Unusable):
            return None, (), (f"{expert.why}, so the query stands for its instruction",)
        asking = Asking(self._workers, expert, query, timeout_s=self._timeout_s)
        messages = ({"role": "user", "content": _PROMPT.format(question=text)},)
        outcome = await asking.ask(messages, temperature=0.0, max_tokens=_MAX_TOKENS, seed=query.seed)
        written = parse_instruction(outcome.text) if isinstance(outcome, Candidate) else ""
        if written:
            return written, (outcome,), ()
        failed = "wrote none" if isinstance(outcome, Candidate) else f"failed ({outcome.message})"
        note = f"the instruction expert {expert.id!r} {failed}, so the query stands for its instruction"
        return None, (outcome,), (note,)


def parse_instruction(text: str) -> str:
    """The first line that says something, without a heading "Instruction:"; at most 400 letters. Empty when there is none."""
    for line in text.splitlines():
        said = line.strip().removeprefix("Instruction:").strip(" \t\"'*")
        if any(letter.isalnum() for letter in said):
            return shortened(said, _MAX_LETTERS)
    return ""


@dataclass(frozen=True, slots=True)
class _Scored:
    """The eligible experts' scores, and what they are made of."""

    scores: list[float]
    shares: list[float]
    local: list[float]
    nearest: list[str]

    @classmethod
    def of(cls, known: Instructions, expert_ids: list[str], instruction: Any, text: Any, alpha: float) -> _Scored:
        """An expert that is not known yet has neither."""
        similarities, nearest = known.similarities(instruction)
        local = known.local(text)
        columns = [known.column_of.get(expert_id) for expert_id in expert_ids]
        shares = global_shares(np.array([-1.0 if column is None else similarities[column] for column in columns]))
        locals_ = np.array([0.0 if column is None else local[column] for column in columns])
        scores = np.clip(alpha * shares + (1 - alpha) * locals_, 0.0, 1.0)
        names = ["" if column is None else nearest[column] for column in columns]
        return cls(scores.tolist(), shares.tolist(), locals_.tolist(), names)

    def why(self, place: int) -> str:
        near = f", nearest to {shortened(self.nearest[place], 80)!r}" if self.nearest[place] else ", says nothing of what it is for"
        return f"instruction {self.shares[place]:.2f}{near}; neighbours {self.local[place]:.2f}"


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
