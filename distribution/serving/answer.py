"""The answer with a file: whole or in ranges, with conditions, read as fast as it is taken."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pools.proved import KIND, PROOF, WANT
from ...progress import warn
from .ranges import Unsatisfiable, lists_tag, parse_ranges, wanted_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from .proofs import Prover

CHUNK = 1 << 20
IMMUTABLE = "public, max-age=31536000, immutable"
BRIEF = "public, max-age=60"
_NOWAIT = getattr(os, "RWF_NOWAIT", None)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Served:
    """A file to be served: where it lies, and what is known of it.

    ``sha256`` is in hex: it is the entity tag, so that a copy is known by its bytes wherever it
    comes from. ``prover`` finds what proves its ranges, if anything does.
    """

    path: Path
    size: int
    sha256: str
    media_type: str
    cache: str = IMMUTABLE
    prover: Callable[[], Prover | None] | None = None

    @property
    def tag(self) -> str:
        """The strong entity tag."""
        return f'"{self.sha256}"'


class FileAnswer:
    """An ASGI application that answers one request with one file."""

    def __init__(self, file: Served) -> None:
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET or HEAD: 200, 206, 304, 412 or 416."""
        file = self._file
        asked = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        common = headers_of(
            {
                "etag": file.tag,
                "cache-control": file.cache,
                "accept-ranges": "bytes",
                "access-control-allow-origin": "*",
                "x-content-type-options": "nosniff",
            }
        )
        if "if-match" in asked and not lists_tag(asked["if-match"], file.tag):
            await _short(send, 412, common)
            return
        if "if-none-match" in asked and lists_tag(asked["if-none-match"], file.tag):
            await _short(send, 304, common)
            return
        try:
            # Ranges are defined for GET alone.
            spans = (
                parse_ranges(wanted_range(asked, file.tag), file.size)
                if scope["method"] == "GET"
                else None
            )
        except Unsatisfiable:
            where = headers_of({"content-range": f"bytes */{file.size}"})
            await _short(send, 416, common + where)
            return
        status, own, parts = _layout(file, spans)
        if spans and len(spans) == 1 and asked.get(WANT.lower()) == KIND:
            proof = await asyncio.to_thread(_proof, file, *spans[0])
            own += headers_of({PROOF.lower(): proof} if proof is not None else {})
        start = {"type": "http.response.start", "status": status, "headers": common + own}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        await _stream(file.path, start, parts, receive, send)


def headers_of(pairs: dict[str, str]) -> Headers:
    """Return headers as ASGI has them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs.items()]


Part = bytes | tuple[int, int]
"""Bytes as they are, or the (start, end) of the file."""


def _layout(file: Served, spans: list[tuple[int, int]] | None) -> tuple[int, Headers, list[Part]]:
    """Return status, headers and the parts of the body."""
    more: dict[str, str] = {}
    parts: list[Part] = []
    if spans is None:
        status, kind = 200, file.media_type
        parts.append((0, file.size))
    elif len(spans) == 1:
        (start, end) = spans[0]
        more = {"content-range": f"bytes {start}-{end - 1}/{file.size}"}
        status, kind = 206, file.media_type
        parts.append((start, end))
    else:
        border = secrets.token_hex(16)
        status, kind = 206, f"multipart/byteranges; boundary={border}"
        for start, end in spans:
            head = (
                f"--{border}\r\ncontent-type: {file.media_type}\r\n"
                f"content-range: bytes {start}-{end - 1}/{file.size}\r\n\r\n"
            )
            parts += [head.encode("latin-1"), (start, end), b"\r\n"]
        parts.append(f"--{border}--\r\n".encode("latin-1"))
    length = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)
    return status, headers_of({"content-type": kind, "content-length": str(length), **more}), parts


def _proof(file: Served, start: int, end: int) -> str | None:
    prover = file.prover() if file.prover is not None else None
    return None if prover is None else prover.prove(start, end)


async def _short(send: Send, status: int, headers: Headers) -> None:
    length = [] if status == 304 else headers_of({"content-length": "0"})
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body"})


async def _stream(path: Path, start: Any, parts: list[Part], receive: Receive, send: Send) -> None:
    """Send the parts; stop reading when the client is gone."""
    try:
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # deleted since it was found, as when it is taken back
        warn(f"{path}: cannot be served: {error.strerror}")
        await _short(send, 404, [])
        return
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await send(start)
        for part in parts:
            if isinstance(part, bytes):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                continue
            position, end = part
            while position < end and not gone.done():
                try:
                    data = await _read(descriptor, min(CHUNK, end - position), position)
                except OSError as error:
                    data, reason = b"", error.strerror
                else:
                    reason = "shorter than its manifest says"
                if not data:
                    # The length is promised already: only a broken connection tells the client.
                    warn(f"{path}: an answer was broken off: {reason}")
                    return
                position += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
        if not gone.done():
            await send({"type": "http.response.body"})
    finally:
        gone.cancel()
        os.close(descriptor)


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(descriptor: int, length: int, position: int) -> bytes | memoryview:
    """Read at once what the page cache holds, and the rest in a thread."""
    if _NOWAIT is not None:
        buffer = bytearray(length)
        try:
            found = os.preadv(descriptor, [buffer], position, _NOWAIT)
        except OSError:  # it would have to wait, or this file system cannot tell
            found = 0
        if found:
            return memoryview(buffer)[:found]
    return await asyncio.to_thread(os.pread, descriptor, length, position)
