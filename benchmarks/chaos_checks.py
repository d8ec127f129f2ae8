"""What must hold under faults, judged from what clients saw and what was stored. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.scripted_expert import read_answer

DOCUMENTED: Mapping[int, frozenset[str]] = {
    429: frozenset({"overloaded"}),
    502: frozenset({"all_experts_failed"}),
    503: frozenset({"no_eligible_expert", "not_ready", "storage_error"}),
    504: frozenset({"deadline_exceeded"}),
}
"""The errors of ``docs/http-api.md`` that a right request may meet here."""
WANTED_SERVED = 0.999
GRACE_S = 10.0
"""Beyond its deadline that an answer may take to arrive: the machine has more to do than to answer."""
TRACED = frozenset({200, 502, 504})
"""Statuses of answers for which an expert was asked: each leaves a trace."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and what is right for it."""

    mark: str
    """Its request id too."""
    kind: str
    model: str
    may_answer: frozenset[str]
    is_owed: bool
    """Whether an expert that no fault ever meets may answer it: then it must be served."""
    deadline_s: float
    is_streamed: bool = False
    leaves: bool = False
    """Its client goes away in the middle."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What its client got."""

    question: Question
    took_s: float
    status: int = 0
    """0: no HTTP answer at all."""
    error: Mapping[str, Any] | None = None
    """OpenAI's error object: of an error, or of the event that ended a stream."""
    text: str = ""
    answered_by: str | None = None
    """As the answer tells it."""
    is_whole: bool = False
    """The answer came to its end."""
    trouble: str = ""
    """What no client should see: a connection that broke, a body that is no JSON."""

    @property
    def is_interrupted(self) -> bool:
        """A stream that had begun and told that it could not go on: nobody else can go on with another's words."""
        return self.question.is_streamed and self.status == 200 and self.error is not None


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """One batch when it is over."""

    batch_id: str
    status: str
    lines: Mapping[str, frozenset[str]]
    """Line to who may answer it."""
    results: Sequence[Mapping[str, Any]]
    """Of the output and of the error file."""
    troubles: Sequence[str] = ()
    """What its client met that no client should."""
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds of one request."""

    status: str
    answered_by: str | None


@dataclass
class Verdict:
    """What was found; every list is to be empty."""

    num_asked: int = 0
    num_served: int = 0
    num_owed: int = 0
    num_owed_served: int = 0
    num_interrupted: int = 0
    num_lines: int = 0
    num_lines_answered: int = 0
    batch_seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that are another's, or another question's, or told to be another's."""
    hung: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    lost_traces: list[str] = field(default_factory=list)
    lost_lines: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    """Owed and not served: not by itself a failure."""
    held: list[str] = field(default_factory=list)
    """Connections to experts that nobody let go of."""

    @property
    def served_share(self) -> float:
        return self.num_owed_served / self.num_owed if self.num_owed else 1.0

    @property
    def targets(self) -> dict[str, bool]:
        """Each with whether it was reached."""
        return {
            "no wrong attribution": not self.wrong,
            f"no answer later than its deadline and {GRACE_S:g} s": not self.hung,
            "every error typed": not self.untyped,
            "no acknowledged trace lost": not self.lost_traces,
            "every line of a batch exactly once": not self.lost_lines,
            "no connection to an expert held": not self.held,
            f"served where a healthy expert could: at least {WANTED_SERVED:.1%} (seen: {self.served_share:.3%})": self.served_share
            >= WANTED_SERVED,
        }


def judge(
    seen: Sequence[Seen], batches: Sequence[BatchSeen], stored: Mapping[str, Sequence[Stored]], held: Collection[str] = ()
) -> Verdict:
    """*stored*: the traces by request id. *held*: experts with calls that run although nobody asks any more."""
    verdict = Verdict(held=sorted(held))
    for one in seen:
        _judge_one(one, stored.get(one.question.mark, ()), verdict)
    for batch in batches:
        _judge_batch(batch, verdict)
    return verdict


def _judge_one(seen: Seen, traces: Sequence[Stored], verdict: Verdict) -> None:
    question = seen.question
    told = f"{question.kind} #{question.mark}: {seen.status} after {seen.took_s:.1f} s"
    if seen.took_s > question.deadline_s + GRACE_S:
        verdict.hung.append(told)
    if question.leaves:
        verdict.statuses["left"] += 1
        return
    verdict.num_asked += 1
    code = (seen.error or {}).get("code")
    verdict.statuses["interrupted" if seen.is_interrupted else f"{seen.status} {code or ''}".strip()] += 1
    if why := _untyped(seen):
        verdict.untyped.append(f"{told}: {why}")
    served = seen.status == 200 and seen.is_whole
    verdict.num_served += served
    verdict.num_interrupted += seen.is_interrupted
    if served and (why := _wrong(seen)):
        verdict.wrong.append(f"{told}: {why}")
    if question.is_owed and not seen.is_interrupted:
        verdict.num_owed += 1
        verdict.num_owed_served += served
        if not served:
            verdict.unserved.append(f"{told}: {code} {(seen.error or {}).get('message', seen.trouble)}")
    if seen.status in TRACED and not seen.trouble:
        _judge_trace(seen, traces, told, verdict)


def _judge_trace(seen: Seen, traces: Sequence[Stored], told: str, verdict: Verdict) -> None:
    if len(traces) != 1:
        verdict.lost_traces.append(f"{told}: {len(traces)} traces")
        return
    wanted = "ok" if seen.is_whole else "error"
    if traces[0].status != wanted:
        verdict.lost_traces.append(f"{told}: its trace says {traces[0].status!r}")
    elif seen.is_whole and traces[0].answered_by != seen.answered_by:
        verdict.wrong.append(f"{told}: told {seen.answered_by}, traced {traces[0].answered_by}")


def _untyped(seen: Seen) -> str | None:
    if seen.trouble:
        return seen.trouble
    if seen.status == 200:
        if seen.is_whole and seen.error is None:
            return None
        if not seen.is_interrupted:
            return "an answer without its end"
        documented = frozenset().union(*DOCUMENTED.values())
    else:
        documented = DOCUMENTED.get(seen.status, frozenset())
    error = seen.error or {}
    if not {"message", "type", "param", "code"} <= error.keys():
        return f"no error object ({error})"
    return None if error["code"] in documented else f"the code {error['code']!r} is not documented for it"


def _wrong(seen: Seen) -> str | None:
    said = read_answer(seen.text)
    if said is None:
        return f"nobody says {seen.text[:80]!r}"
    who, mark = said
    if mark != seen.question.mark:
        return f"the answer to #{mark}"
    if who not in seen.question.may_answer:
        return f"answered by {who}, asked {seen.question.model}"
    return None if who == seen.answered_by else f"answered by {who}, told to be {seen.answered_by}'s"


def _judge_batch(batch: BatchSeen, verdict: Verdict) -> None:
    verdict.num_lines += len(batch.lines)
    verdict.batch_seconds.append(batch.took_s)
    verdict.untyped += [f"{batch.batch_id}: {trouble}" for trouble in batch.troubles]
    if batch.status != "completed":
        verdict.lost_lines.append(f"{batch.batch_id}: {batch.status}")
        return
    times = Counter(str(result["custom_id"]) for result in batch.results)
    for line in batch.lines:
        if times[line] != 1:
            verdict.lost_lines.append(f"{batch.batch_id} {line}: {times[line]} times")
    if unknown := times.keys() - batch.lines.keys():
        verdict.lost_lines.append(f"{batch.batch_id}: lines that nobody sent: {sorted(unknown)[:3]}")
    for result in batch.results:
        line, response = str(result["custom_id"]), result.get("response") or {}
        if response.get("status_code") == 200:
            verdict.num_lines_answered += 1
            said = read_answer(str(response["body"]["choices"][0]["message"]["content"]))
            if said is None or said[1] != line or said[0] not in batch.lines.get(line, frozenset()):
                verdict.wrong.append(f"{batch.batch_id} {line}: {said}")
        elif not (result.get("error") or {}).get("code") and not ((response.get("body") or {}).get("error") or {}).get("code"):
            verdict.untyped.append(f"{batch.batch_id} {line}: {result}")
