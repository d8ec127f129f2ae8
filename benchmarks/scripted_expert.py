"""An expert that says who it is: ``python benchmarks/scripted_expert.py NAME --port PORT [--pace SECONDS]``.

An OpenAI-compatible server whose answer names it and repeats the mark of the question, ``I am NAME and was asked #MARK.``, so that whoever
reads an answer knows whose it is and which question it belongs to. A stream has a word an event, *pace* apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
from typing import Any

from aiohttp import web

MARK = re.compile(r"#([0-9a-z-]+)")
"""In a question, and in the answer to it."""
_ANSWER = re.compile(r"I am (\S+) and was asked #([0-9a-z-]+)\.")


def answer_of(name: str, question: str) -> str:
    found = MARK.search(question)
    return f"I am {name} and was asked #{found[1] if found else 'nothing'}."


def read_answer(text: str) -> tuple[str, str] | None:
    """Who answered, and which mark its question had; None for anything that no scripted expert says."""
    found = _ANSWER.fullmatch(text.strip())
    return (found[1], found[2]) if found else None


class ScriptedExpert:
    def __init__(self, name: str, pace_s: float) -> None:
        self._name, self._pace_s = name, pace_s

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        words = answer_of(self._name, str(body["messages"][-1]["content"])).split(" ")
        usage = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
        if not body.get("stream"):
            await asyncio.sleep(self._pace_s)
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return web.json_response({**_envelope("chat.completion", body), "choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionError):  # its caller went away
            await self._stream(request, response, body, words, usage)
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, body: dict[str, Any], words: list[str], usage: dict[str, int]
    ) -> None:
        await response.prepare(request)
        for position, word in enumerate(words):
            delta = {"content": word if position == len(words) - 1 else f"{word} "}
            await _send(response, body, [{"index": 0, "delta": delta, "finish_reason": None}])
            await asyncio.sleep(self._pace_s)
        await _send(response, body, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await _send(response, body, [], usage=usage)
        await response.write(b"data: [DONE]\n\n")

    async def models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": self._name, "object": "model"}]})


async def _send(response: web.StreamResponse, body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> None:
    await response.write(f"data: {json.dumps({**_envelope('chat.completion.chunk', body), 'choices': choices, **more})}\n\n".encode())


def _envelope(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1, "model": body["model"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="An expert that says who it is.")
    parser.add_argument("name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace", type=float, default=0.01, help="seconds between two words")
    arguments = parser.parse_args()
    expert = ScriptedExpert(arguments.name, arguments.pace)
    application = web.Application()
    application.router.add_post("/v1/chat/completions", expert.chat)
    application.router.add_get("/v1/models", expert.models)
    web.run_app(application, host="127.0.0.1", port=arguments.port, print=None, access_log=None, handle_signals=False)


if __name__ == "__main__":
    main()
