"""A network on one machine: a relay before each holder, which limits, delays and counts.

The same for every channel, and on machines whose kernel cannot shape (``tc netem``). A relay ends
the connections it passes on, so a long way costs round trips here, but no slow start of TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

HOST = "127.0.0.1"
CHUNK = 1 << 16
UNDERWAY = 256
"""Most chunks on the way in each direction of a connection: memory is bounded."""
BURST_SECONDS = 0.02

T = TypeVar("T")


class Relay:
    """The way to one holder: ``port`` is where it is reached, ``sent`` the bytes it gave."""

    def __init__(self, target: int, rate: float, delay: float) -> None:
        self.port = 0
        self.sent = 0
        self._target, self._rate, self._delay = target, rate, delay
        self._free = 0.0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._meet, HOST, 0, limit=2 * CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and break every connection off."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        # Whoever breaks off ends this connection only; a cancelled one ends in close().
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                there = await asyncio.open_connection(HOST, self._target, limit=2 * CHUNK)
                writers.append(there[1])
                await asyncio.gather(
                    self._pass(reader, there[1], False), self._pass(there[0], writer, True)
                )
            finally:
                for one in writers:
                    one.transport.abort()
                self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, given: bool
    ) -> None:
        """Pass on one direction of a connection; only what is ``given`` is limited and counted."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDERWAY)
        arriving = asyncio.create_task(self._arrive(way, writer))
        try:
            while data := await reader.read(CHUNK):
                if given:
                    await self._pace(len(data))
                    self.sent += len(data)
                await self._put(way, data, arriving)
            await self._put(way, b"", arriving)
            await arriving
        finally:
            arriving.cancel()

    async def _put(
        self, way: asyncio.Queue[tuple[float, bytes]], data: bytes, arriving: asyncio.Task[None]
    ) -> None:
        put = asyncio.create_task(way.put((time.monotonic() + self._delay, data)))
        await asyncio.wait([put, arriving], return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            put.cancel()
            arriving.result()
            raise ConnectionResetError

    async def _arrive(
        self, way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await way.get()
            if self._delay and (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    async def _pace(self, size: int) -> None:
        """Wait until the holder's line is free; all its connections share it."""
        if self._rate:
            now = time.monotonic()
            self._free = max(self._free, now - BURST_SECONDS) + size / self._rate
            if self._free > now:
                await asyncio.sleep(self._free - now)


class Network:
    """Relays, run by a thread of their own; a context manager that breaks all off at its end."""

    def __init__(self, rate: float, ping: float) -> None:
        self._rate, self._delay = rate, ping / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._relays: list[Relay] = []

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for relay in self._relays:
            self.cut(relay)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def sent(self) -> int:
        """Bytes that all holders together gave."""
        return sum(relay.sent for relay in self._relays)

    def relay(self, target: int) -> Relay:
        """Return a new way to the holder who listens on the port ``target``."""
        relay = Relay(target, self._rate, self._delay)
        self._do(relay.open())
        self._relays.append(relay)
        return relay

    def cut(self, relay: Relay) -> None:
        """Close the way to a holder."""
        self._do(relay.close())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)
