"""A form with a file becomes a stored file, without ever being in memory."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from api.disconnect import ClientGone
from api.multipart import FormParser, PartBegins, PartEnds, boundary_of
from api.settings import Settings
from api.upload_room import UploadRoom
from domain.batch import FilePurpose, StoredFile
from domain.errors import InvalidRequest, PayloadTooLarge
from domain.nearest import did_you_mean

if TYPE_CHECKING:
    from experts_registry.files import FileStore, NewFile

MAX_FIELD_BYTES = 1024
"""Of what is no file: a purpose, a number of seconds."""
EXPIRES_AFTER_S = (3600, 2_592_000)
"""Seconds that a caller may ask for, first and last included. OpenAI's bounds: an hour and thirty days."""
_DAY_S = 86_400.0
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


async def receive_file(
    request: Request, files: FileStore, room: UploadRoom, settings: Settings, *, key_id: str | None = None
) -> StoredFile:
    """The file that *request* uploads, of the key *key_id*. Raises ``InvalidRequest``, ``PayloadTooLarge`` or
    ``StorageError``; then nothing is stored.

    The form is read to its end even when it is wrong: who is still sending would not hear why.
    """
    await room.look(files)
    parser = FormParser(boundary_of(request.headers.get("content-type", "")))
    async with files.new() as new:
        form = _Form(new, room, settings)
        try:
            async for piece in request.stream():
                for event in parser.feed(piece):
                    match event:
                        case PartBegins():
                            form.begins(event)
                        case PartEnds():
                            form.ends()
                        case bytes():
                            await form.takes(event)
            parser.finish()
            filename, seconds = form.check(), form.expires_after_s(settings.file_days * _DAY_S)
            async with room.storing(new.num_bytes, files, settings.max_files_bytes):
                return await new.keep(filename, FilePurpose.BATCH, expires_at=time.time() + seconds, key_id=key_id)
        except ClientDisconnect:
            raise ClientGone from None
        finally:
            form.over()


@dataclass(slots=True)
class _Form:
    """What has come so far. The first thing that is wrong is remembered, and from then on nothing of the file is written or kept."""

    file: NewFile
    room: UploadRoom
    settings: Settings
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    wrong: InvalidRequest | PayloadTooLarge | None = None
    _num_taken: int = 0
    """Of the room."""
    _part: PartBegins | None = None
    _text: bytearray = field(default_factory=bytearray)

    def begins(self, part: PartBegins) -> None:
        self._part, self._text = part, bytearray()
        if part.name != "file":
            return
        if self.filename is not None:
            self._refuse("the form has two files: upload each with a request of its own", "file")
        elif not part.filename:
            self._refuse("the part 'file' is no file: send it with a file name (curl: -F file=@requests.jsonl)", "file")
        else:
            self.filename = re.split(r"[/\\]", part.filename)[-1] or "file"

    async def takes(self, piece: bytes) -> None:
        if self.wrong is not None or self._part is None:
            return
        if self._part.name != "file":
            self._text += piece
            if len(self._text) > MAX_FIELD_BYTES:
                self._refuse(f"the field has more than {MAX_FIELD_BYTES} bytes", self._part.name[:64])
            return
        try:
            if (max_bytes := self.settings.max_file_bytes) < self.file.num_bytes + len(piece):
                message = f"the file is larger than {max_bytes:,} bytes (CONSILIUM_MAX_FILE_BYTES): make several of it"
                raise PayloadTooLarge(message, param="file")
            self.room.take(len(piece), self.settings.max_files_bytes)
        except PayloadTooLarge as error:
            self.wrong = error
            await self.file.discard()  # its sender may take long to come to the end, and others need the room
            self.over()
            return
        self._num_taken += len(piece)
        await self.file.write(piece)

    def ends(self) -> None:
        if self._part is not None and self._part.name != "file":
            self.fields[self._part.name] = self._text.decode("utf-8", "replace")

    def over(self) -> None:
        """Nothing more is written: others may have the room. What is stored by then counts as that."""
        self.room.give_back(self._num_taken)
        self._num_taken = 0

    def check(self) -> str:
        """The file's name. Raises what was wrong first."""
        purpose = self.fields.get("purpose")
        if self.wrong is None:
            if self.filename is None:
                self._refuse("the form has no part 'file': send the file under that name (curl: -F file=@requests.jsonl)", "file")
            elif purpose is None:
                self._refuse("the form has no part 'purpose': send purpose=batch", "purpose")
            elif purpose != FilePurpose.BATCH:
                hint = did_you_mean(purpose[:64], [FilePurpose.BATCH.value])
                self._refuse(f"files of purpose {purpose[:64]!r} are not taken: {hint}", "purpose")
            elif not self.file.num_bytes:
                self._refuse("the file is empty: write one request a line", "file")
        if self.wrong is not None:
            raise self.wrong
        return self.filename or ""

    def expires_after_s(self, usual: float) -> float:
        """Seconds that the file is kept: as asked, else *usual*. Raises ``InvalidRequest``."""
        if _ANCHOR not in self.fields and _SECONDS not in self.fields:
            return usual
        if self.fields.get(_ANCHOR) != "created_at":
            raise InvalidRequest("expires_after.anchor must be 'created_at'", param="expires_after.anchor")
        least, most = EXPIRES_AFTER_S
        seconds = self.fields.get(_SECONDS, "")
        if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10 and least <= int(seconds) <= most):
            message = f"expires_after.seconds must be a whole number from {least} to {most}, not {seconds[:20]!r}"
            raise InvalidRequest(message, param="expires_after.seconds")
        return float(seconds)

    def _refuse(self, message: str, param: str) -> None:
        self.wrong = self.wrong or InvalidRequest(message, param=param)
