"""What the service asks of one vLLM server beside completions: health, names, sleep, adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from domain.errors import ExpertError, ExpertProtocolError, ExpertTimeout, InvalidRequest
from workers.aiohttp_errors import rule_for
from workers.vllm.limits import VllmLimits

_SHOWN = 500
"""Characters of a server's own text that are passed on."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of ``/v1/models``."""

    name: str
    root: str | None = None
    """Where it was loaded from."""
    parent: str | None = None
    """Of an adapter: the model that it sits on."""


def control_session() -> aiohttp.ClientSession:
    """For the servers of one service. Their number is small and each is asked one thing at a time."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None))


class ServerControl:
    """Raises only ``ExpertError``, and ``InvalidRequest`` where vLLM refuses what it was asked for."""

    def __init__(self, session: aiohttp.ClientSession, server_id: str, port: int, limits: VllmLimits) -> None:
        self._session = session
        self._server_id = server_id
        self._url = f"http://127.0.0.1:{port}"
        self._limits = limits

    async def ailment(self) -> str | None:
        """Why it cannot be called; None when it is healthy."""
        try:
            status, _ = await self._ask("GET", "/health", timeout_s=self._limits.probe_timeout_s)
        except ExpertError as error:
            return error.message
        return None if status == 200 else f"its /health answers with HTTP {status}"

    async def mistake(self, served_name: str) -> str | None:
        """What it serves instead of *served_name*; None when it serves that."""
        names = [model.name for model in await self.models()]
        return None if served_name in names else f"it serves {', '.join(map(repr, names)) or 'nothing'}, not {served_name!r}"

    async def models(self) -> list[ServedModel]:
        """The model itself and its adapters."""
        told = await self._json("GET", "/v1/models", timeout_s=self._limits.probe_timeout_s)
        listed = told.get("data")
        entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
        return [ServedModel(str(entry.get("id")), entry.get("root"), entry.get("parent")) for entry in entries]

    async def sleep(self) -> None:
        """Return when it sleeps: weights in the machine's memory, nothing on the GPU. Calls that run are ended.

        Level 1. Level 2 would forget the weights, and waking would have to read them again, adapters included.
        """
        await self._done("POST", "/sleep", timeout_s=self._limits.change_timeout_s, params={"level": "1"})

    async def wake(self) -> None:
        """Return when it answers again."""
        await self._done("POST", "/wake_up", timeout_s=self._limits.change_timeout_s)

    async def is_sleeping(self) -> bool:
        return bool((await self._json("GET", "/is_sleeping", timeout_s=self._limits.probe_timeout_s)).get("is_sleeping"))

    async def load_adapter(self, name: str, path: str) -> None:
        """Serve the LoRA adapter in folder *path* as model *name*."""
        body = {"lora_name": name, "lora_path": path}
        await self._done("POST", "/v1/load_lora_adapter", timeout_s=self._limits.adapter_timeout_s, json=body)

    async def unload_adapter(self, name: str) -> None:
        """Serve it no more."""
        await self._done("POST", "/v1/unload_lora_adapter", timeout_s=self._limits.adapter_timeout_s, json={"lora_name": name})

    async def _json(self, method: str, path: str, *, timeout_s: float) -> Mapping[str, Any]:
        body = await self._done(method, path, timeout_s=timeout_s)
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ExpertProtocolError(f"server {self._server_id!r} answered {path} with something that is not JSON") from error
        return told if isinstance(told, Mapping) else {}

    async def _done(
        self, method: str, path: str, *, timeout_s: float, params: Mapping[str, str] | None = None, json: object = None
    ) -> bytes:
        """The body of a 200."""
        status, body = await self._ask(method, path, timeout_s=timeout_s, params=params, json=json)
        if status == 200:
            return body
        msg = f"server {self._server_id!r} refused {path} with HTTP {status}: {_said(body)}"
        if 400 <= status < 500:
            raise InvalidRequest(msg)
        raise ExpertProtocolError(msg, status=status)

    async def _ask(
        self, method: str, path: str, *, timeout_s: float, params: Mapping[str, str] | None = None, json: object = None
    ) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(method, f"{self._url}{path}", params=params, json=json, allow_redirects=False) as response,
            ):
                return response.status, await self._body(response, path)
        except TimeoutError as error:
            raise ExpertTimeout(f"server {self._server_id!r} did not answer {path} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            kind, what = rule_for(type(error))
            raise kind(f"server {self._server_id!r} {what}") from error

    async def _body(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        pieces, size = [], 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > self._limits.max_response_bytes:
                msg = f"server {self._server_id!r} answered {path} with more than {self._limits.max_response_bytes} bytes"
                raise ExpertProtocolError(msg)
            pieces.append(piece)
        return b"".join(pieces)


def _said(body: bytes) -> str:
    """The message of an error, in vLLM's shape or as it is."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return " ".join(body.decode("utf-8", "replace").split())[:_SHOWN]
    error = told.get("error", told) if isinstance(told, Mapping) else told
    message = error.get("message", error) if isinstance(error, Mapping) else error
    return str(message)[:_SHOWN]
