"""One open pool, lent to requests: read-only, confined, each with a limit of time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import DatacompError
from ...pools.pool import Pool
from ...progress import warn
from .index import current, drawing_of, file_of
from .overview import Drawing
from .renewing import Renewal

IDLE_SECONDS = 10.0
"""How long an unused pool stays open: DuckDB lets nobody write to a file that another reads."""


class TooSlowError(DatacompError):
    """A question took longer than questions may."""


class Lender:
    """Lends a pool, each time on a connection of its own, so that requests can run side by side.

    The file is opened when it is needed and closed after ``idle`` seconds without use, so that
    others can write to it in between; ``mark`` then changes.
    """

    def __init__(
        self, path: Path, memory_limit: str | None = None, threads: int | None = None,
        idle: float = IDLE_SECONDS, renewal: Renewal | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self._renewal = renewal
        self._memory, self._threads, self._idle = memory_limit, threads, idle
        self._lock = threading.Lock()
        self._open: Pool | None = None
        self._users = 0
        self._used = 0.0
        self._unusable: tuple[int, ...] = ()
        self.mark: tuple[int, ...] = ()
        """What changes when the pool does: what is remembered of it holds as long as this."""
        self.indexed = False
        """Whether the pool that is lent has its index beside it (see ``index.py``)."""
        self.drawing: Drawing | None = None
        """What its overview is drawn of, if that is kept with the index."""

    @contextlib.contextmanager
    def pool(self, seconds: float) -> Iterator[Pool]:
        """Lend the pool for at most so long.

        Raises TooSlowError then, and StorageError while another process writes to it.
        """
        with self._lock:
            if self._open is not None and not self._users and self._index_is_new():
                self._open.close()
                self._open = None
            if self._open is None:
                self._open = self._opened()
                self.mark = self._stat()
                if not self.indexed and self._renewal is not None:
                    self._renewal.start(self.mark)
            cursor = self._open.connection.cursor()
            self._users += 1
        over = threading.Event()

        def stop() -> None:
            over.set()
            cursor.interrupt()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            yield Pool(cursor, self.path)
        except KeyboardInterrupt:
            if not over.is_set():
                raise
            raise TooSlowError(
                f"stopped after {seconds:g} seconds; ask for less, or start with a longer --seconds"
            ) from None
        finally:
            timer.cancel()
            cursor.close()
            with self._lock:
                self._users -= 1
                self._used = time.monotonic()
            watcher = threading.Timer(self._idle, self._close_if_idle)
            watcher.daemon = True
            watcher.start()

    def _opened(self) -> Pool:
        """Open the pool, with its index beside it if that is of the pool as it is now."""

        def opened(beside: Path | None = None) -> Pool:
            self.indexed, self.drawing = False, None
            drawing = drawing_of(self.path) if beside is not None else None
            found = Pool.open(
                self.path, read_only=True, confined=True, memory_limit=self._memory,
                threads=self._threads, beside=beside,
            )  # fmt: skip
            self.indexed, self.drawing = beside is not None, drawing
            return found

        if not current(self.path):
            return opened()
        try:
            return opened(file_of(self.path))
        except DatacompError as error:
            found = opened()
            warn(f"the index of {self.path} is not used: {error}")
            self._unusable = self._stat()
            return found

    def _index_is_new(self) -> bool:
        """Tell whether the pool that is open without an index has got one meanwhile."""
        if self.indexed or self._renewal is None or self._unusable == self._stat():
            return False
        return current(self.path)

    def _stat(self) -> tuple[int, ...]:
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _close_if_idle(self) -> None:
        with self._lock:
            idle = time.monotonic() - self._used >= self._idle * 0.99
            if self._open is not None and not self._users and idle:
                self._open.close()
                self._open = None

    def close(self) -> None:
        """Close the pool, and end what is being made for it."""
        if self._renewal is not None:
            self._renewal.close()
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None
