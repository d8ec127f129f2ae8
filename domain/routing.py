"""A routing decision: who was considered, with scores and reasons, and who was selected."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, Self, get_args

from domain.adjustments import AS_SCORED, UNKNOWN_CIRCUMSTANCES, Circumstances, RoutingAdjustments
from domain.cascade import CascadeRule
from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.experts import ExpertCard
from domain.plan import ExpertFailure, Outcome
from domain.skills import SkillMatch

PickKind = Literal["top_k", "sample", "dynamic", "gate"]
PICK_KINDS: tuple[str, ...] = get_args(PickKind)
PICK_THRESHOLDS: Mapping[str, float] = {"dynamic": 0.5, "gate": 0.15}
"""Of the kinds that have one, where none is given."""


@dataclass(frozen=True, slots=True)
class PickRule:
    """How many experts to take from the scores.

    ``top_k`` takes the *k* best. ``sample`` draws *k* with replacement, in proportion to the scores (Symbolic-MoE).
    ``dynamic`` takes the smallest set whose normalised scores reach *threshold*, at most *k* (Huang et al. 2024). ``gate`` takes those of
    the *k* best whose own share is above *threshold*, and at least the best (Fusion-𝒳).
    """

    kind: str = "dynamic"
    k: int = 3
    threshold: float = PICK_THRESHOLDS["dynamic"]
    """Share of the total score that a dynamic set must reach, or that each expert must pass a gate with, in (0, 1]."""

    @classmethod
    def of(cls, kind: str, k: int, threshold: float | None = None) -> Self:
        """With the kind's own threshold where none is given."""
        return cls(kind, k, PICK_THRESHOLDS.get(kind, PICK_THRESHOLDS["dynamic"]) if threshold is None else threshold)


@dataclass(frozen=True, slots=True)
class ScoredExpert:
    """One expert that was considered. ``score`` is in [0, 1]; ``why`` is a sentence fragment for people."""

    expert_id: str
    score: float
    selected: bool
    why: str = ""

    @classmethod
    def explained_by(cls, expert_id: str, score: float, selected: bool, why: Callable[[], str]) -> Self:
        """One whose reason is put into words when somebody reads it: of a thousand that are considered, few are ever shown.

        It is a value like any other: compared, copied, pickled or written down, it has its words. *why* has to be pure.
        """
        made = object.__new__(cls)
        # Straight into the slots: the constructor takes twice as long, which counts where a thousand are made for a request.
        _put_id(made, expert_id)
        _put_score(made, score)
        _put_selected(made, selected)
        _put_why(made, why)
        return made

    @classmethod
    def all_explained_by(
        cls, expert_ids: Sequence[str], scores: Sequence[float], selected: Container[str], why: Callable[[int], str], order: Iterable[int]
    ) -> tuple[Self, ...]:
        """The same for every place in *order*, at which *expert_ids*, *scores* and *why* tell of one expert. A call for each takes as long
        again."""
        new, made = object.__new__, list[Self]()
        for place in order:
            one = new(cls)
            expert_id = expert_ids[place]
            _put_id(one, expert_id)
            _put_score(one, scores[place])
            _put_selected(one, expert_id in selected)
            _put_why(one, partial(why, place))
            made.append(one)
        return tuple(made)


class _MadeWhenRead:
    """In place of a slot: a function in it is called when the attribute is read, and its result kept instead."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self._slot.__get__(instance, owner)
        if callable(value):
            value = value()
            self._slot.__set__(instance, value)
        return value

    def __set__(self, instance: object, value: object) -> None:
        self._slot.__set__(instance, value)


_put_id, _put_score, _put_selected, _put_why = (vars(ScoredExpert)[part.name].__set__ for part in fields(ScoredExpert))
# Afterwards: a dataclass makes its slots itself, and fields stay plain ones for everything that looks at them.
ScoredExpert.why = _MadeWhenRead(ScoredExpert.why)  # type: ignore[assignment, misc]


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """What a router decided, with everything needed to say why."""

    router: str
    selected: tuple[str, ...]
    """Expert ids, best first. With ``sample`` an id may stand more than once."""
    considered: tuple[ScoredExpert, ...] = ()
    """Best first. Experts that were filtered out before scoring stand at the end with score 0 and the reason."""
    reason: str = ""
    skills: tuple[SkillMatch, ...] = ()
    category: str | None = None
    """The coarse domain of the query, when the router knows it: chooses the aggregator."""
    fallback: bool = False
    """The query was like nothing known, and the strategy's fallback expert was taken."""
    others_fit: bool = True
    """Whether an expert that was considered with a score may answer in place of selected ones that fail, or are silent. Not so where
    the scores do not speak of this query."""
    calls: tuple[Outcome, ...] = ()
    """Calls that the router itself made to decide, e.g. to name the query's skills."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What else this router wants to show (neighbours, thresholds). JSON values only. ``detailed_by`` defers it."""
    cascade: CascadeRule | None = None
    """``selected`` are asked one after the other, in that order, until an answer is good enough by this rule; None: all at once."""
    vector: bytes | None = field(default=None, repr=False)
    """The encoder's vector of the text as it was routed, float16; None where none was made. What feedback is learnt with: never shown."""

    @property
    def num_calls(self) -> int:
        """Calls that the router has made."""
        return sum(not isinstance(outcome, ExpertFailure) or outcome.called for outcome in self.calls)

    def detailed_by(self, detail: Callable[[], Mapping[str, Any]]) -> Self:
        """This decision with a detail that is made when somebody reads it, which few do at once: the trace's writer, who asked for an
        explanation. *detail* has to be pure."""
        made = object.__new__(type(self))
        for get, put in _slots:  # ``replace`` takes four times as long, and most decisions come this way
            put(made, get(self))
        _put_detail(made, detail)
        return made

    @property
    def is_detailed(self) -> bool:
        """Whether the detail is there, or would be made by reading it."""
        return not callable(_kept_detail(self))

    def altered(self, **changes: Any) -> Self:
        """``dataclasses.replace`` that leaves a deferred detail deferred."""
        if self.is_detailed or "detail" in changes:
            return replace(self, **changes)
        kept = _kept_detail(self)
        others = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "detail"}
        made = type(self)(**{**others, **changes})
        _put_detail(made, kept)
        return made


_slots = [(vars(RoutingDecision)[part.name].__get__, vars(RoutingDecision)[part.name].__set__) for part in fields(RoutingDecision)]
_kept_detail, _put_detail = vars(RoutingDecision)["detail"].__get__, vars(RoutingDecision)["detail"].__set__
RoutingDecision.detail = _MadeWhenRead(vars(RoutingDecision)["detail"])  # type: ignore[assignment, misc]


@dataclass(frozen=True, slots=True)
class RoutingQuery:
    """What a router is asked."""

    request: ChatRequest
    experts: Sequence[ExpertCard]
    """The eligible ones, never empty."""
    pick: PickRule
    seed: int
    """For everything random in this decision; the same seed gives the same decision."""
    fallback_expert: str | None = None
    """Where a query goes that is like nothing known; None means it is refused."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Router-specific settings of the strategy."""
    deadline: Deadline | None = None
    """The request's; for routers that call an expert themselves."""
    max_calls: int | None = None
    """Calls that the request may make in all: the router's own count, and one has to be left for a candidate. None: any number."""
    barred: Callable[[ExpertCard], str | None] = lambda _: None
    """Why an expert that the router would call itself may not be called for this request; None when it may. For people."""
    adjustments: RoutingAdjustments = AS_SCORED
    """What is laid over the scores; who may be asked at all has been seen to already."""
    circumstances: Circumstances = UNKNOWN_CIRCUMSTANCES
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Why experts that the caller may see are not among ``experts``, by id. For people."""
