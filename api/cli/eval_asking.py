"""Answers from a service, as evaluations ask for them."""

from __future__ import annotations

from api.answer_evaluation import ServiceAsker
from api.cli.client import ApiClient
from api.cli.failures import CommandFailed

_CHAT = "/v1/chat/completions"


def asker_of(client: ApiClient) -> ServiceAsker:
    """Asks the service that *client* leads to."""

    async def post(body: object) -> object:
        return await client.call("POST", _CHAT, body=body)

    return ServiceAsker(post, CommandFailed)
