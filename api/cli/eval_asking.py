"""Answers from a service, as evaluations ask for them (``evaluation.answers.asking.Asker``)."""

from __future__ import annotations

import time

from api.answer_evaluation import reply_of
from api.cli.client import ApiClient
from api.cli.failures import CommandFailed
from evaluation.answers.asking import Ask
from evaluation.answers.replies import Reply

_CHAT = "/v1/chat/completions"


class ServiceAsker:
    """Asks over the API that everybody uses, so that what is measured is what is served."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def ask(self, ask: Ask) -> Reply:
        body = {
            **ask.params,
            "model": ask.model,
            "messages": [dict(message) for message in ask.messages],
            "consilium": {**ask.options, "explain": True},
        }
        began = time.monotonic()
        try:
            answer = await self._client.call("POST", _CHAT, body=body)
            return reply_of(answer, (time.monotonic() - began) * 1000)
        except CommandFailed as failure:
            return Reply(error=failure.message, latency_ms=(time.monotonic() - began) * 1000)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return Reply(error=f"not a chat completion: {type(error).__name__}: {error}", latency_ms=(time.monotonic() - began) * 1000)
