"""Fetch the images of a pool into shards, and write down what became of every URL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import MissingError, RunError, StorageError, UsageError
from ...pools import fetches
from ...pools.engine import Engine
from ...pools.parallel import default_workers
from ...pools.pool import Pool
from ...pools.ranges import is_remote
from ...progress import Progress, say, warn
from ..shards.index import ensure_index
from .folder import bind, locked
from .job import FetchOptions, Job, Row, be_quiet
from .lists import Lists, Request, list_columns
from .reasons import retry_pattern
from .spread import Distributor, distributor_of

HELD_SECONDS = 600.0
"""How long what was fetched waits for a pool that another process holds."""
_POLL_SECONDS = 0.5


@dataclass
class FetchReport:
    """What one fetch did: URLs that gave an image, and those that failed by reason.

    ``before`` is how many samples were at hand when it began; ``verify`` did not look at these.
    """

    out: str
    fetched: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    seconds: float = 0.0
    available: int = 0
    samples: int = 0
    before: int = 0

    @property
    def tried(self) -> int:
        """How many URLs were tried."""
        return self.fetched + sum(self.failed.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def fetch_pool(
    pool: Path | str, out: Path | str, options: FetchOptions | None = None,
    distributor: str | Engine | Distributor = "local",
) -> FetchReport:  # fmt: skip
    """Fetch what is pending of a pool into shards in the folder ``out``, and index them.

    With ``options.retry`` only those are fetched that failed for these reasons. What an
    interrupted fetch left is done first. ``distributor`` is an engine, ``local``,
    ``multiprocessing`` or ``ray`` (the latter two img2dataset's own), or a function; on a Ray
    engine it is img2dataset's. The pool is open only while states are read or written, so that it
    can be asked meanwhile.

    Raises UsageError for a folder or a pool that belongs to another fetch, or if an interrupted one
    had other options (``lists.FLAGS``), StorageError if something cannot be written or another
    process fetches, RunError for shards that failed.
    """
    if is_remote(str(out)):
        raise UsageError(
            f"{out}: images are fetched to a folder, where an interrupted fetch goes on; fetch to "
            "one, then copy it to the store: 'shards index', 'select' and 'build' read it there"
        )
    pool, out, options = Path(pool), Path(out), options or FetchOptions()
    retry_pattern(options.retry)
    if pool.is_dir():
        raise UsageError(
            f"{pool}: a folder, which cannot remember what became of its URLs; make a pool that "
            f"links to it: datacomp pool add pool.duckdb {pool} --kind commonpool --link"
        )
    if not pool.is_file():
        raise MissingError(f"{pool}: no such pool; make one with 'datacomp pool add {pool} ...'")
    run = distributor_of(distributor)
    workers = getattr(distributor, "workers", None)
    with locked(out):
        if isinstance(distributor, Engine):
            distributor.reach(out)
        return _Fetch(pool, out, options, run, options.processes or workers).run()


class _Fetch:
    def __init__(
        self, pool: Path, out: Path, options: FetchOptions, distributor: Distributor,
        processes: int | None,
    ) -> None:  # fmt: skip
        self.pool, self.out, self.options, self.distribute = pool, out, options, distributor
        self.processes = processes or default_workers()
        self.lists = Lists(out)
        self.report = FetchReport(str(out))
        self._failed: Counter[str] = Counter()
        self._warned = False

    def run(self) -> FetchReport:
        started = time.monotonic()
        request = Request.of(self.options)
        with Pool.open(self.pool) as pool:
            bind(pool, self.out, self.options)
            self.report.before = fetches.available_count(pool)
        left, asked = self.lists.rows(), self.lists.request()
        if left and asked is not None:
            self._finish(left, request.other_than(asked))
        self.lists.clear()  # of a fetch that was killed after its last shard, too
        if not (request.retry and asked == request.to_dict()):
            with Pool.open(self.pool) as pool:
                self._tell_about_boxes(pool)
                planned = self.lists.lay_down(pool, self.options)
            if planned:
                self._work()
        if any(self.out.glob("*.tar")):
            ensure_index(self.out)
        with Pool.open(self.pool, read_only=True) as pool:
            self.report.samples = pool.count()
            self.report.available = fetches.available_count(pool)
        self.report.failed = dict(sorted(self._failed.items(), key=lambda kv: (-kv[1], kv[0])))
        self.report.seconds = time.monotonic() - started
        return self.report

    def _finish(self, left: list[Row], other: str | None) -> None:
        """Go on with the lists of an interrupted fetch, as it would have."""
        if other:
            raise UsageError(
                f"{self.out}: an interrupted fetch left {len(left):,} shards to be fetched {other}"
                f"; finish them {other}, then fetch as you like"
            )
        say(f"going on with what an interrupted fetch left: {len(left):,} shards")
        self._work()

    def _work(self) -> None:
        """Fetch every list that is there, and write down what became of it."""
        be_quiet()
        self.lists.let_go()
        self._write_down(self.lists.finished())
        rows = self.lists.rows()
        if rows:
            # Every process opens at least one connection to a host.
            processes = min(self.processes, len(rows), self.options.per_host)
            job = Job(self.out.absolute(), self.options, self.lists.columns(), processes)
            done = self.distribute(job, rows, processes)
            with _Watch(self.lists):
                for _ in done:
                    self._write_down(self.lists.finished())
        self._write_down(self.lists.finished(), patience=HELD_SECONDS)
        failed = self.lists.rows()
        if failed:
            raise RunError(
                f"{self.out}: {len(failed):,} shards could not be fetched "
                f"({self._why(failed[0])}); run the same command again"
            )
        self.lists.clear()

    def _why(self, row: Row) -> str:
        place = Path(row[1]).with_suffix(".error")
        return place.read_text()[:300] if place.exists() else "no word of why"

    def _write_down(self, rows: list[Row], patience: float = 0.0) -> None:
        """Put what became of finished shards into the pool; if it is held, later."""
        if not rows:
            return
        until = time.monotonic() + patience
        while True:
            try:
                with Pool.open(self.pool) as pool:
                    for row in rows:
                        self._write_one(pool, row)
                return
            except StorageError as error:
                if "held" not in str(error):
                    raise
                if not self._warned:
                    self._warned = True
                    warn(f"{error}; what is fetched meanwhile waits beside the shards")
                if time.monotonic() >= until:
                    if patience:
                        raise
                    return
                time.sleep(_POLL_SECONDS)

    def _write_one(self, pool: Pool, row: Row) -> None:
        outcomes, ended = self.lists.outcomes(row)
        fetches.record(pool, outcomes, ended)
        self.lists.remove(row)
        self.report.shards += 1
        self.report.fetched += outcomes["state"].to_pylist().count(fetches.OK)
        self._failed.update(why for why in outcomes["reason"].to_pylist() if why is not None)

    def _tell_about_boxes(self, pool: Pool) -> None:
        boxes = self.options.boxes
        if boxes is None or boxes in list_columns(pool, self.options):
            return
        if boxes != FetchOptions.boxes:
            raise UsageError(f"{self.pool}: no column {boxes!r} of faces to blur")
        say(f"the pool has no column {boxes}: no faces are blurred")


class _Watch:
    """Draws progress from what workers leave in files, wherever they run."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._counts = lists.counts()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _draw(self) -> None:
        with Progress("fetching", sum(self._counts.values()), "URLs") as progress:
            while True:
                ended = self._over.wait(_POLL_SECONDS)
                open_now = {number for number, _ in self._lists.rows()}
                whole = {number for number, _ in self._lists.finished()}
                done = sum(
                    count if number in whole or number not in open_now
                    else min(self._lists.progress(number), count)
                    for number, count in self._counts.items()
                )  # fmt: skip
                progress.advance(max(done - progress.done, 0))
                if ended:
                    return
