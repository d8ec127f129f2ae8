"""The LoRA adapters of one server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from domain.errors import Conflict, InvalidRequest
from workers.vllm.command import ServerLaunch
from workers.vllm.control import ServerControl


class Adapters:
    """Which adapters a server has, by name. Its callers see to it that one thing is asked of a server at a time."""

    def __init__(self, max_adapters: int) -> None:
        self._max_adapters = max_adapters
        self._folders: dict[str, str] = {}

    @property
    def folders(self) -> dict[str, str]:
        """Name to folder, as they are now."""
        return dict(self._folders)

    def replace(self, folders: Mapping[str, str]) -> None:
        """These, name to folder, are what the server has now."""
        self._folders = dict(folders)

    async def load(self, name: str, folder: str, launch: ServerLaunch, control: ServerControl) -> None:
        """Return when calls may name *name*; at once when they may already."""
        if self._folders.get(name) == folder:
            return
        if name in self._folders:
            msg = f"server {launch.server_id!r} has an adapter {name!r} from {self._folders[name]}; unload that first"
            raise Conflict(msg)
        if len(self._folders) >= self._max_adapters:
            raise Conflict(f"server {launch.server_id!r} has {self._max_adapters} adapters, the most there may be; unload some first")
        await asyncio.to_thread(check_adapter, launch, name, folder)
        await control.load_adapter(name, folder)
        self._folders[name] = folder

    async def unload(self, name: str, control: ServerControl) -> None:
        """Return when the server has forgotten it; at once when it does not have it."""
        if name in self._folders:
            with suppress(InvalidRequest):  # it says that it does not have it
                await control.unload_adapter(name)
            del self._folders[name]

    async def restore(self, control: ServerControl) -> str:
        """Load all again, on a server that was started again. What is to be said about those that it refuses."""
        lost = ""
        for name, folder in tuple(self._folders.items()):
            try:
                await control.load_adapter(name, folder)
            except InvalidRequest as error:
                del self._folders[name]
                lost += f"; adapter {name!r} is lost: {error.message}"
        return lost


def check_adapter(launch: ServerLaunch, name: str, folder: str) -> None:
    """Raise ``InvalidRequest`` when the server of *launch* cannot load the adapter in *folder* as model *name*. Reads a file.

    vLLM would refuse most of it as well, and leave the reason in its log.
    """
    if launch.lora_rank is None:
        raise _wrong(launch, name, "the server takes no adapters; declare it with the `max_lora_rank` of the largest")
    if name == launch.served_name or not name.isprintable() or not name:
        raise _wrong(launch, name, f"{name!r} cannot be its name: the model itself has it, or it is not printable")
    if not Path(folder).is_absolute():
        raise _wrong(launch, name, f"its folder {folder!r} must be an absolute path")
    try:
        told = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
        rank = int(told["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _wrong(launch, name, f"{folder}/adapter_config.json is no LoRA adapter's ({error})") from error
    if rank > launch.lora_rank:
        raise _wrong(launch, name, f"its rank is {rank}, and the server was started for adapters up to rank {launch.lora_rank}")


def _wrong(launch: ServerLaunch, name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"adapter {name!r} cannot be loaded on server {launch.server_id!r}: {why}", param="adapter")
