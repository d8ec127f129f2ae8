"""An expert as judge of answers, asked as everybody else is asked, remembered, and counted apart from those whom it judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.errors import ExpertUnavailable
from domain.skills import LabelledQuestion
from evaluation.answers.asking import Asker, Failures, Way, remembered
from evaluation.answers.replies import ReplyLog
from evaluation.comparison.report import Judged
from evaluation.judge import judge_messages, judge_params, parse_verdict, verdict_of


@dataclass(slots=True)
class AskedJudge:
    """``evaluation.judge.AnswerJudge`` over an ``Asker``. A verdict that is in the log is not asked for again."""

    asker: Asker
    log: ReplyLog
    expert: str
    version: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Its card's defaults."""
    _failures: Failures = field(default_factory=Failures)
    _num_verdicts: int = 0
    _num_asked: int = 0
    _num_unreadable: int = 0
    _num_failed: int = 0
    _prompt_tokens: int = 0
    _completion_tokens: int = 0

    async def says_right(self, question: LabelledQuestion, answer: str) -> bool:
        """Raises ``ExpertError`` when the judge fails, or says neither yes nor no."""
        way = Way(f"judge {self.expert}", self.expert, self.version, judge_params(self.sampling))
        reply, asked = await remembered(self.asker, self.log, way, judge_messages(question, answer), failures=self._failures)
        self._num_asked += asked
        for call in reply.calls if asked else ():
            self._prompt_tokens += call.prompt_tokens
            self._completion_tokens += call.tokens - call.prompt_tokens
        if reply.error is not None:
            self._num_failed += 1
            raise ExpertUnavailable(f"judge {self.expert!r} failed: {reply.error}")
        self._num_unreadable += parse_verdict(reply.text) is None
        verdict = verdict_of(self.expert, reply.text)
        self._num_verdicts += 1
        return verdict

    def judged(self, candidates: Iterable[str]) -> Judged:
        """What it has done so far; *candidates* are the experts whom it judges."""
        return Judged(
            expert=self.expert,
            num_verdicts=self._num_verdicts,
            num_asked=self._num_asked,
            num_unreadable=self._num_unreadable,
            num_failed=self._num_failed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            is_judged_too=self.expert in set(candidates),
        )
