"""Prompt templates that show an expert a question with several candidate answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from domain.chat import Message, text_of
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.plan import Candidate
from orchestrator.prompts import Block, fenced, instructions

COMPACT = "compact"
"""The template of experts that are too small to follow instructions, and were trained on this form."""


def with_note(messages: Sequence[Message], note: str) -> tuple[Message, ...]:
    """The conversation *messages* with *note* as the last of what its system message says."""
    # Some servers accept only one system message, and only at the start.
    system = [text_of(message) for message in messages if message.get("role") == "system"]
    rest = [message for message in messages if message.get("role") != "system"]
    return ({"role": "system", "content": "\n\n".join([*system, note])}, *rest)


def _moa(messages: Sequence[Message], answers: Sequence[str], prompts: Mapping[str, str], weak: str | None) -> tuple[Message, ...]:
    """For general language models: after Mixture-of-Agents (Wang et al. 2024) and Symbolic-MoE's aggregator."""
    blocks = [Block(f"answer {number}", answer) for number, answer in enumerate(answers, 1)]
    told = instructions("fuse", prompts)
    if weak is not None:
        told += " " + instructions("contrast", prompts)
        blocks.append(Block("weak answer", weak))
    return with_note(messages, f"{told}\n\n{fenced(blocks)}")


def _compact(messages: Sequence[Message], answers: Sequence[str], prompts: Mapping[str, str], weak: str | None) -> tuple[Message, ...]:  # noqa: ARG001
    """For very small models with little context, such as the zoo's: the last user message, then numbered answers."""
    numbered = "\n".join(f"{number}: {' '.join(answer.split())[:60]}" for number, answer in enumerate(answers, 1))
    last = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=len(messages) - 1)
    asked: Message = {"role": "user", "content": f"{text_of(messages[last])}\n{numbered}"}
    return (*messages[:last], asked)


def answer_text(candidate: Candidate) -> str:
    """What a candidate answered, as text: its tool calls as JSON when it made some, never its reasoning."""
    calls = tool_calls_of(candidate)
    return json.dumps([call.get("function") for call in calls]) if calls else candidate.text


def tool_calls_of(candidate: Candidate) -> Sequence[Mapping[str, Any]]:
    """The tool calls of its first choice, OpenAI's shape; empty when it made none."""
    return (candidate.choices[0].message.get("tool_calls") or ()) if candidate.choices else ()


TEMPLATES: Mapping[str, Callable[[Sequence[Message], Sequence[str], Mapping[str, str], str | None], tuple[Message, ...]]] = {
    "moa": _moa,
    COMPACT: _compact,
}


def fuse_messages(
    messages: Sequence[Message],
    answers: Sequence[str],
    template: str,
    prompts: Mapping[str, str] | None = None,
    *,
    weak: str | None = None,
) -> tuple[Message, ...]:
    """The conversation *messages* with the candidates' *answers* (reasoning removed), as *template* puts it; *prompts* are a
    strategy's own instructions, *weak* an answer that is known to be weak.

    Raises ``InvalidRequest`` for an unknown template.
    """
    if template not in TEMPLATES:
        raise InvalidRequest(f"unknown aggregation prompt {template!r}; {did_you_mean(template, tuple(TEMPLATES), always_list=True)}")
    return TEMPLATES[template](messages, answers, prompts or {}, weak)
