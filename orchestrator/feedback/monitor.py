"""What a log of feedback adds up to: a fold, so that every process that reads the same log comes to the same. No clock, no I/O.

After DriftMoE (arXiv 2507.18464: every expert that was right is credited, accuracy is prequential, drift is looked for) and the theory of
mixtures of experts in continual learning (arXiv 2406.16437: a router's updates must stop once they change little).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from domain.feedback import ExpertFeedback, Feedback, FeedbackView, Tally
from orchestrator.feedback.drift import DriftLimits, DriftTest


@dataclass(frozen=True, slots=True)
class MonitorLimits:
    """How feedback is weighed."""

    window: int = 50
    """Answers of an expert that its prequential accuracy is over."""
    max_since: int = 200
    """Answers of an expert that are remembered one by one, to begin anew with after an alarm."""
    freeze_below: float = 0.005
    """Change of an expert's accuracy that counts as none."""
    freeze_after: int = 50
    """So many answers in a row that change nothing settle an expert's figures."""
    drift: DriftLimits = DriftLimits()


@dataclass(frozen=True, slots=True)
class Alarm:
    """An expert answers worse than it used to, or as well as before again."""

    expert_id: str
    drifted: bool
    at: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What one event has changed."""

    learnt: frozenset[str] = frozenset()
    """Experts whose figures it has moved; not those that are frozen."""
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    score: float
    expected: float | None
    skills: tuple[tuple[str, float], ...]
    category: str | None


@dataclass(slots=True)
class _Expert:
    """Mutable."""

    test: DriftTest
    window: deque[_Answer]
    recent: deque[_Answer]
    overall: Tally = Tally()
    by_skill: dict[str, Tally] = field(default_factory=dict)
    by_category: dict[str, Tally] = field(default_factory=dict)
    num_feedback: int = 0
    num_alarms: int = 0
    drifted_at: float | None = None
    num_calm: int = 0
    frozen: bool = False

    def learn(self, answer: _Answer) -> None:
        self.overall = self.overall.plus(answer.score)
        for skill, weight in answer.skills:
            self.by_skill[skill] = self.by_skill.get(skill, Tally()).plus(answer.score, weight)
        if answer.category is not None:
            self.by_category[answer.category] = self.by_category.get(answer.category, Tally()).plus(answer.score)

    def begin_anew(self, num_answers: int) -> None:
        """Forget all but the last *num_answers*: the others are of the expert as it was."""
        kept = list(self.recent)[-num_answers:]
        self.overall, self.by_skill, self.by_category = Tally(), {}, {}
        self.num_calm, self.frozen = 0, False
        for answer in kept:
            self.learn(answer)


class Monitor:
    """Mutable: takes events in the log's order."""

    def __init__(self, limits: MonitorLimits | None = None) -> None:
        self._limits = limits or MonitorLimits()
        self._experts: dict[str, _Expert] = {}

    def take(self, event: Feedback) -> Taken:
        """Test, then train: the answer is compared before it is learnt. One that was taken back changes nothing."""
        if not event.counts:
            return Taken()
        if event.resets is not None:
            self._experts.pop(event.resets, None)
            return Taken()
        learnt, alarms = set[str](), list[Alarm]()
        for expert_id, score in event.scores.items():
            expert = self._experts.setdefault(expert_id, self._new())
            answer = _Answer(score, event.expected.get(expert_id), tuple(event.skills), event.category)
            expert.num_feedback += 1
            expert.window.append(answer)
            expert.recent.append(answer)
            since = expert.test.take(score)
            if since is not None:
                alarms.append(Alarm(expert_id, expert.test.drifted, event.created_at))
                expert.num_alarms += 1
                expert.drifted_at = event.created_at if expert.test.drifted else expert.drifted_at
                expert.begin_anew(since)
                learnt.add(expert_id)
            elif not expert.frozen:
                self._train(expert, answer)
                learnt.add(expert_id)
        return Taken(frozenset(learnt), tuple(alarms))

    def _train(self, expert: _Expert, answer: _Answer) -> None:
        before = expert.overall.accuracy
        expert.learn(answer)
        after = expert.overall.accuracy
        calm = before is not None and after is not None and abs(after - before) < self._limits.freeze_below
        expert.num_calm = expert.num_calm + 1 if calm else 0
        expert.frozen = expert.num_calm >= self._limits.freeze_after and not expert.test.drifted

    def _new(self) -> _Expert:
        limits = self._limits
        return _Expert(DriftTest(limits.drift), deque(maxlen=limits.window), deque(maxlen=max(limits.window, limits.max_since)))

    def view(self, version: int) -> FeedbackView:
        """Everything as it is now."""
        return FeedbackView(version, {expert_id: _seen(expert_id, expert) for expert_id, expert in sorted(self._experts.items())})


def fold(events: Iterable[Feedback], limits: MonitorLimits | None = None) -> tuple[Monitor, list[Feedback]]:
    """What *events*, in the log's order, add up to; and *events* as far as they were learnt."""
    monitor = Monitor(limits)
    return monitor, [learnt_of(event, monitor.take(event)) for event in events]


def learnt_of(event: Feedback, taken: Taken) -> Feedback:
    """*event* with the scores that were learnt from it: not those of experts whose figures have settled."""
    return replace(event, scores={expert_id: score for expert_id, score in event.scores.items() if expert_id in taken.learnt})


def _seen(expert_id: str, expert: _Expert) -> ExpertFeedback:
    scores = [answer.score for answer in expert.window]
    errors = [(answer.expected - answer.score) ** 2 for answer in expert.window if answer.expected is not None]
    seen = ExpertFeedback(
        expert_id=expert_id,
        overall=expert.overall,
        by_skill=dict(expert.by_skill),
        by_category=dict(expert.by_category),
        num_feedback=expert.num_feedback,
        drifted=expert.test.drifted,
        usual=expert.test.sum_usual / expert.test.num_usual if expert.test.drifted and expert.test.num_usual else None,
        drifted_at=expert.drifted_at,
        num_alarms=expert.num_alarms,
        frozen=expert.frozen,
        window=len(scores),
    )
    return replace(
        seen,
        accuracy=sum(scores) / len(scores) if scores else None,
        surprise=sum(errors) / len(errors) if errors else None,
    )
