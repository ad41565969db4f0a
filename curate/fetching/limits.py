"""What strangers' servers may take of us, and we of them: time, memory, and turns.

All of it is shared by the threads of one process and lives as long as one shard.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path

from .reasons import FetchFailed

LOOK_SECONDS = 0.25
LARGEST_PAUSE = 300.0
"""Seconds that a host can ask to be left alone for in one answer."""
USUAL_PAUSE = 5.0
"""Seconds that a busy host is left alone that does not say for how long."""
SMALL_BODY = 1 << 20
"""Bytes that a body may have without waiting for room."""


@dataclass
class Watched:
    """A connection that ends at a moment, whatever it is busy with."""

    until: float
    socket: socket.socket | None = None
    expired: bool = False


class Deadlines:
    """Cuts connections that take too long: a server that sends a byte now and then never ends.

    A file at ``stop`` cuts all of them and lets no new one begin.
    """

    def __init__(self, stop: Path | None = None) -> None:
        self._stop = stop
        self._watched: dict[int, Watched] = {}
        self._lock = threading.Lock()
        self._over, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="deadlines", daemon=True)

    def __enter__(self) -> Deadlines:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def stopped(self) -> bool:
        """Whether nothing new may begin."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let nothing new begin, and cut what goes on."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until stopped."""
        self._stopped.wait(seconds)

    @contextlib.contextmanager
    def watch(self, seconds: float) -> Iterator[Watched]:
        """Give what happens inside so many seconds. Raises FetchFailed once stopped."""
        if self.stopped:
            raise FetchFailed("not_fetched", "stopped")
        watched = Watched(time.monotonic() + seconds)
        with self._lock:
            self._watched[id(watched)] = watched
        try:
            yield watched
        finally:
            with self._lock:
                del self._watched[id(watched)]

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if self._stop is not None and self._stop.exists():
                self.stop()
            now = time.monotonic()
            with self._lock:
                late = [w for w in self._watched.values() if self.stopped or w.until < now]
            for watched in late:
                watched.expired = True
                if watched.socket is not None:
                    # Not TLS's own shutdown, which wants to talk to the other side.
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(watched.socket, socket.SHUT_RDWR)


class Hosts:
    """Turns: so many connections to a host ``at_once``, and none while it wants to be left alone.

    A request that would have to wait longer than ``patience`` seconds for that is given up.
    """

    def __init__(
        self, at_once: int, patience: float, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._turns: defaultdict[str, threading.Semaphore] = defaultdict(
            lambda: threading.Semaphore(at_once)
        )
        self._quiet_until: dict[str, float] = {}
        self._patience, self._pause = patience, pause
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Wait for a turn and hold it. Raises FetchFailed ``host_busy``."""
        with self._lock:
            turns = self._turns[host]
        with turns:
            wait = self._quiet_until.get(host, 0.0) - time.monotonic()
            if wait > self._patience:
                raise FetchFailed("host_busy", f"{host} wants {wait:.0f} s of quiet")
            if wait > 0:
                self._pause(wait)
            yield

    def leave_alone(self, host: str, retry_after: str | None) -> None:
        """Note that a host is busy; ``retry_after`` is its header: seconds, or a date."""
        until = time.monotonic() + min(_seconds(retry_after), LARGEST_PAUSE)
        with self._lock:
            self._quiet_until[host] = max(until, self._quiet_until.get(host, 0.0))


def _seconds(retry_after: str | None) -> float:
    """Return how long a host wants to be left alone; if it does not say, USUAL_PAUSE."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, OverflowError):  # a date that is none
        date = parsedate_tz(text)
        if date is not None:
            return max(mktime_tz(date) - time.time(), 0.0)
    return USUAL_PAUSE


class Room:
    """Memory for large bodies, from the first byte until the sample is written.

    Bodies up to SMALL_BODY need none: there are at most twice as many of them as threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: defaultdict[str, list[int]] = defaultdict(list)
        self._total = 0
        self._freed = threading.Condition()

    def take(self, url: str, size: int, patience: float) -> None:
        """Wait for room; raise FetchFailed ``timeout`` after ``patience`` seconds."""
        with self._freed:
            if not self._freed.wait_for(
                lambda: not self._total or self._total + size <= self._size, patience
            ):
                raise FetchFailed("timeout", "waited for memory for a large image")
            self._held[_plain(url)].append(size)
            self._total += size

    def give_back(self, url: str) -> None:
        """Free what one sample of a URL holds, if it holds anything."""
        url = _plain(url)
        with self._freed:
            if url in self._held:
                self._total -= self._held[url].pop()
                if not self._held[url]:
                    del self._held[url]
                self._freed.notify_all()


def _plain(url: str) -> str:
    """Return a URL without what urllib takes away from one."""
    return url.strip().strip("<>").removeprefix("URL:").strip().partition("#")[0]
