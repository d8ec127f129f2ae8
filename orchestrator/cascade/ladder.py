"""The calls of a cascade, numbered, and what follows from those that have ended. Pure.

Positions: the calls of the first expert, then the judge's of it, then those of the second expert, and so on. The last expert is asked
once and judged by nobody: there is nobody to go on to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from domain.cascade import CascadeRule
from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision
from orchestrator.aggregation.fallback import is_answer
from orchestrator.cascade.confidence import Assessed, agreement, by_logprob, judge_messages, judged
from orchestrator.planner import expert_params, repeated, within_effort

NEVER = 2.0
"""A threshold that no answer reaches: every expert is asked."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One expert's turn."""

    number: int
    """From 1."""
    expert: ExpertCard
    answers: range
    """Positions of the expert's own calls."""
    judge: int | None = None
    """Position of the judge's call."""

    @property
    def positions(self) -> range:
        return range(self.answers.start, self.answers.stop + (self.judge is not None))


@dataclass(frozen=True, slots=True)
class Ladder:
    """Everything about one request's cascade that is known before the first call."""

    request: ChatRequest
    rule: CascadeRule
    stages: tuple[Stage, ...]
    judge: ExpertCard | None
    deadline: Deadline
    again: Callable[[], bool] | None = None
    """Of every call (``ExpertCall.again``)."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """The strategy's own templates."""

    @property
    def num_calls(self) -> int:
        """Calls at most."""
        return self.stages[-1].positions.stop

    def stage_of(self, position: int) -> Stage:
        return next(stage for stage in self.stages if position in stage.positions)

    def role_of(self, position: int) -> CallRole:
        return CallRole.JUDGE if position == self.stage_of(position).judge else CallRole.CANDIDATE

    def expert_of(self, position: int) -> str:
        stage = self.stage_of(position)
        return self.judge.id if position == stage.judge and self.judge is not None else stage.expert.id

    def call(self, position: int, outcomes: Mapping[int, Outcome]) -> ExpertCall:
        """The call at *position*; a judge's reads what its stage's has come to."""
        stage, request = self.stage_of(position), self.request
        if position == stage.judge and self.judge is not None:
            answer = outcomes[stage.answers.start]
            messages = judge_messages(
                self.judge, request.messages, answer if isinstance(answer, Candidate) else Candidate(stage.expert.id, ()), self.prompts
            )
            params = {**self.judge.sampling}
            return ExpertCall(self.judge, messages, params, self.deadline, request.id, CallRole.JUDGE, again=self.again)
        params = expert_params(stage.expert, request)
        sample = position - stage.answers.start
        if sample:
            params |= repeated(params, request, sample)
        if self.rule.confidence == "logprob" and stage is not self.stages[-1]:
            params["logprobs"] = True
        call = ExpertCall(stage.expert, request.messages, params, self.deadline, request.id, again=self.again)
        return within_effort(call, request)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one stage."""

    stage: Stage
    note: str
    assessed: Assessed | None = None
    """None: it was not judged, since it failed or is the last."""


@dataclass(frozen=True, slots=True)
class Ask:
    """These calls come next."""

    stage: Stage
    positions: tuple[int, ...]
    before: tuple[Verdict, ...]
    """The stages before."""

    @property
    def best(self) -> Candidate | None:
        """The surest answer so far; what is told when there is no time for another."""
        return _surest(self.before)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer."""

    answer: Candidate
    why: str
    verdicts: tuple[Verdict, ...]
    stood_in: bool = False
    """The last expert came to nothing, and the surest answer before it is told."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """Every expert has failed."""

    failures: tuple[ExpertFailure, ...]
    verdicts: tuple[Verdict, ...]


Step = Ask | Accepted | Nobody


def make_ladder(
    request: ChatRequest,
    decision: RoutingDecision,
    rule: CascadeRule,
    experts: Mapping[str, ExpertCard],
    *,
    deadline: Deadline,
    max_calls: int,
    again: Callable[[], bool] | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Ladder:
    """The cascade of *decision*, as far as *max_calls* carries it: the first experts and the last one, those between are left out.

    Raises ``InvalidRequest`` when samples are to be compared and the caller asks for several choices.
    """
    if rule.confidence == "agreement" and (request.params.get("n") or 1) > 1 and len(decision.selected) > 1:
        raise InvalidRequest(
            "n: a cascade that compares samples gives one choice; leave n out, judge by logprob, or ask a model by name", param="n"
        )
    chosen = list(dict.fromkeys(decision.selected))
    num_stages = max(1, min(len(chosen), 1 + (max_calls - 1) // rule.calls_per_stage))
    chosen = [*chosen[: num_stages - 1], chosen[-1]]
    stages, position = list[Stage](), 0
    for number, expert_id in enumerate(chosen, 1):
        is_last = number == len(chosen)
        num_answers = rule.samples if rule.confidence == "agreement" and not is_last else 1
        answers = range(position, position + num_answers)
        judge = answers.stop if rule.confidence == "judge" and not is_last else None
        stages.append(Stage(number, experts[expert_id], answers, judge))
        position = stages[-1].positions.stop
    judge_card = experts.get(rule.judge_expert) if rule.judge_expert is not None else None
    return Ladder(request, rule, tuple(stages), judge_card, deadline, again, prompts or {})


def as_laddered(decision: RoutingDecision, ladder: Ladder, max_calls: int) -> RoutingDecision:
    """*decision* as far as *ladder* carries it out."""
    called = tuple(stage.expert.id for stage in ladder.stages)
    if called == decision.selected:
        return decision
    missed = ", ".join(expert_id for expert_id in decision.selected if expert_id not in called)
    reason = f"{decision.reason} Note: max_calls leaves {max_calls} call{'s' * (max_calls != 1)}, so the cascade goes without {missed}."
    considered = tuple(replace(expert, selected=expert.expert_id in called) for expert in decision.considered)
    return replace(decision, selected=called, considered=considered, reason=reason)


def next_step(ladder: Ladder, outcomes: Mapping[int, Outcome]) -> Step:
    """What *outcomes* (by position) lead to. The same outcomes always lead to the same step."""
    verdicts: list[Verdict] = []
    failures: list[ExpertFailure] = []
    for stage in ladder.stages:
        is_last = stage is ladder.stages[-1]
        if missing := tuple(position for position in stage.answers if position not in outcomes):
            return Ask(stage, missing, tuple(verdicts))
        found = [outcomes[position] for position in stage.answers]
        answers = [outcome for outcome in found if isinstance(outcome, Candidate) and is_answer(outcome)]
        failures += [outcome for outcome in found if isinstance(outcome, ExpertFailure)]
        if not answers:
            verdicts.append(Verdict(stage, _why_no_answer(found) + ("" if is_last else ", so the next expert was asked")))
            continue
        if is_last:
            verdicts.append(Verdict(stage, "accepted: nobody is left to ask"))
            return Accepted(_as_asked(answers[0], ladder), _told(verdicts), tuple(verdicts))
        if stage.judge is not None and stage.judge not in outcomes:
            return Ask(stage, (stage.judge,), tuple(verdicts))
        assessed = _assessed(ladder, stage, answers, outcomes)
        is_sure = assessed.confidence >= ladder.rule.threshold
        compared = f"confidence {assessed.confidence:.2f} ({assessed.why})"
        if is_sure:
            verdicts.append(Verdict(stage, f"accepted: {compared}, {ladder.rule.threshold:g} needed", assessed))
            return Accepted(assessed.answer, _told(verdicts), tuple(verdicts))
        verdicts.append(Verdict(stage, f"{compared} below {ladder.rule.threshold:g}, so the next expert was asked", assessed))
    best = _surest(verdicts)
    if best is not None:
        return stands(best, verdicts, "no later expert answered")
    silent = [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, Candidate)]
    if silent:  # as of a single expert: nothing is an answer too
        return Accepted(silent[-1], _told(verdicts), tuple(verdicts), stood_in=True)
    return Nobody(tuple(failures), tuple(verdicts))


def stands(best: Candidate, verdicts: Sequence[Verdict], because: str) -> Accepted:
    """*best*, the surest answer before somebody who has not answered, is told."""
    why = f"{_told(verdicts)}; {because}, so the surest answer before stands, {best.expert_id}'s"
    return Accepted(best, why, tuple(verdicts), stood_in=True)


def _assessed(ladder: Ladder, stage: Stage, answers: Sequence[Candidate], outcomes: Mapping[int, Outcome]) -> Assessed:
    match ladder.rule.confidence:
        case "judge":
            assessed = judged(answers[0], outcomes[stage.judge] if stage.judge is not None else Candidate("", ()))
        case "logprob":
            assessed = by_logprob(answers[0])
        case _:
            assessed = agreement(answers, len(stage.answers))
    return replace(assessed, answer=_as_asked(assessed.answer, ladder))


def _as_asked(answer: Candidate, ladder: Ladder) -> Candidate:
    """*answer* without the log-probabilities that only the cascade wanted."""
    if ladder.rule.confidence != "logprob" or ladder.request.params.get("logprobs"):
        return answer
    return replace(answer, choices=tuple(replace(choice, logprobs=None) for choice in answer.choices))


def _surest(verdicts: Sequence[Verdict]) -> Candidate | None:
    known = [verdict.assessed for verdict in verdicts if verdict.assessed is not None]
    # Of equals the later one: who was asked later is expected to be the better.
    return max(reversed(known), key=lambda assessed: assessed.confidence).answer if known else None


def _why_no_answer(found: Sequence[Outcome]) -> str:
    failed = next((outcome for outcome in found if isinstance(outcome, ExpertFailure)), None)
    return "it answered nothing" if failed is None else f"it failed ({failed.message})"


def _told(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(f"{verdict.stage.expert.id}: {verdict.note}" for verdict in verdicts)
