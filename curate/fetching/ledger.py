"""Where a fetch finds what is to be fetched, and where it writes down what became of it.

That is a pool (here), or a folder of metadata, file by file (``partwise``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import HeldError, UsageError
from ...pools import fetches
from ...pools.connection import patience
from ...pools.pool import Pool
from ...progress import say, warn
from .folder import bind
from .job import FetchOptions, Row
from .lists import Lists, Request, check_verify, list_columns

if TYPE_CHECKING:
    import pyarrow as pa

HELD_SECONDS = 600.0
"""How long what was fetched waits for a pool that another process holds."""

Tally = Counter[str | None]
"""How many URLs failed for each reason; None is for those that gave an image."""


def tally_of(outcomes: pa.Table) -> Tally:
    """Count outcomes by their reasons."""
    return Counter(outcomes["reason"].to_pylist())


class Ledger(Protocol):
    """What a fetch knows of its samples."""

    once: bool
    """Whether a uid is fetched once, wherever it stands."""
    set_aside: dict[str, int]
    """How many files of metadata cannot be read, by reason; known when it has begun."""

    def begin(self) -> int:
        """Take the folder of shards for these samples; return how many are at hand."""
        ...

    def lay_down(self, request: Request, asked: dict[str, Any] | None) -> Iterator[None]:
        """Write the lists of what is to be fetched, once or several times; yield after each.

        The caller does what they say before it asks for more. ``asked`` is the request that an
        interrupted fetch was about, which the caller has finished.
        """
        ...

    def record(self, rows: list[Row], last: bool) -> Iterator[tuple[Row, Tally]]:
        """Write down what became of finished lists; yield each, and its tally, when it is safe.

        Some may be left for later, unless this is the ``last`` time.
        """
        ...

    def totals(self) -> tuple[int, int]:
        """Return how many samples there are, and how many are at hand."""
        ...


class PoolLedger:
    """A pool of one file. It is open only while states are read or written."""

    once = True

    def __init__(self, path: Path, lists: Lists, options: FetchOptions) -> None:
        self._path, self._lists, self._options = path, lists, options
        self.set_aside: dict[str, int] = {}
        self._warned = False

    def begin(self) -> int:
        """Bind the folder to the pool."""
        with Pool.open(self._path) as pool:
            bind(pool, self._lists.out, self._options)
            return fetches.available_count(pool)

    def lay_down(self, request: Request, asked: dict[str, Any] | None) -> Iterator[None]:
        """Write the lists of all that is to be fetched."""
        if request.retry and asked == request.to_dict():
            return
        with Pool.open(self._path) as pool:
            tell_about_boxes(pool, self._options)
            check_verify(pool, self._options)
            planned = self._lists.lay_down(pool, self._options, request)
        if planned:
            yield

    def record(self, rows: list[Row], last: bool) -> Iterator[tuple[Row, Tally]]:
        """Write outcomes into the pool; if it is held, later."""
        try:
            with patience(HELD_SECONDS if last else 0.0):
                opened = Pool.open(self._path)
        except HeldError as error:
            if last:
                raise
            if not self._warned:
                self._warned = True
                warn(f"{error}; what is fetched meanwhile waits beside the shards")
            return
        with opened as pool:
            for row in rows:
                outcomes, ended = self._lists.outcomes(row)
                fetches.record(pool, outcomes, ended)
                yield row, tally_of(outcomes)

    def totals(self) -> tuple[int, int]:
        """Ask the pool."""
        with Pool.open(self._path, read_only=True) as pool:
            return pool.count(), fetches.available_count(pool)


def tell_about_boxes(pool: Pool, options: FetchOptions) -> None:
    """Say that no faces are blurred where nothing tells where they are.

    Raises UsageError for a column that was named and is not there.
    """
    boxes = options.boxes
    if boxes is None or boxes in list_columns(pool, options):
        return
    if boxes != FetchOptions.boxes:
        raise UsageError(f"{pool.path}: no column {boxes!r} of faces to blur")
    say(f"the pool has no column {boxes}: no faces are blurred")
