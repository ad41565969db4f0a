"""Fetch the images of a pool into shards, and write down what became of every URL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import MissingError, RunError, UsageError
from ...pools.engine import Engine, Local
from ...pools.parallel import default_workers
from ...pools.ranges import is_remote
from ...progress import Progress, say
from ..shards.index import ensure_index
from .folder import locked
from .job import FetchOptions, Job, Row, be_quiet
from .ledger import Ledger, PoolLedger
from .lists import Lists, Request
from .partwise import PartwiseLedger
from .reasons import retry_pattern
from .spread import Distributor, distributor_of

_POLL_SECONDS = 0.5


@dataclass
class FetchReport:
    """What one fetch did: URLs that gave an image, and those that failed by reason.

    ``before`` is how many samples were at hand when it began; ``verify`` did not look at these.
    ``set_aside`` counts files of metadata that cannot be read, by reason.
    """

    out: str
    fetched: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    seconds: float = 0.0
    available: int = 0
    samples: int = 0
    before: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)

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
    can be asked meanwhile. Of a folder of metadata, each file is fetched into shards of its own,
    and what became of its URLs stands in ``out/outcomes`` under its name.

    Raises UsageError for a folder or a pool that belongs to another fetch, or if an interrupted one
    had other options (``lists.FLAGS``), StorageError if something cannot be written or another
    process fetches, RunError for shards that failed.
    """
    if is_remote(str(out)):
        raise UsageError(
            f"{out}: images are fetched to a folder, where an interrupted fetch goes on; fetch to "
            "one, then copy it to the store: 'shards index', 'select' and 'build' read it there"
        )
    if is_remote(str(pool)):
        raise UsageError(
            f"{pool}: a fetch reads metadata in a folder; copy them to one that every worker sees"
        )
    pool, out, options = Path(pool), Path(out), options or FetchOptions()
    retry_pattern(options.retry)
    if not pool.exists():
        raise MissingError(f"{pool}: no such pool; make one with 'datacomp pool add {pool} ...'")
    run = distributor_of(distributor)
    engine = distributor if isinstance(distributor, Engine) else Local(1)
    processes = options.processes or getattr(distributor, "workers", None) or default_workers()
    with locked(out):
        engine.reach(out)
        lists = Lists(out)
        ledger = (
            PartwiseLedger(pool, lists, options, engine, processes)
            if pool.is_dir()
            else PoolLedger(pool, lists, options)
        )
        return _Fetch(ledger, lists, options, run, processes).run()


class _Fetch:
    def __init__(
        self, ledger: Ledger, lists: Lists, options: FetchOptions, distributor: Distributor,
        processes: int,
    ) -> None:  # fmt: skip
        self.ledger, self.lists, self.out = ledger, lists, lists.out
        self.options, self.distribute, self.processes = options, distributor, processes
        self.report = FetchReport(str(self.out))
        self._failed: Counter[str] = Counter()

    def run(self) -> FetchReport:
        started = time.monotonic()
        request = Request.of(self.options)
        self.report.before = self.ledger.begin()
        self.report.set_aside = self.ledger.set_aside
        left, asked = self.lists.rows(), self.lists.request()
        if left and asked is not None:
            self._finish(left, request.other_than(asked))
        self.lists.clear()  # of a fetch that was killed after its last shard, too
        for _ in self.ledger.lay_down(request, asked):
            self._work()
        if any(self.out.glob("*.tar")):
            ensure_index(self.out, keep_going=not self.ledger.once)
        self.report.samples, self.report.available = self.ledger.totals()
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
        self._write_down()
        finished = set(self.lists.finished())
        rows = [row for row in self.lists.rows() if row not in finished]
        if rows:
            # Every process opens at least one connection to a host.
            processes = min(self.processes, len(rows), self.options.per_host)
            job = Job(self.out.absolute(), self.options, self.lists.columns(), processes)
            done = self.distribute(job, rows, processes)
            with _Watch(self.lists):
                for _ in done:
                    self._write_down()
        self._write_down(last=True)
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

    def _write_down(self, last: bool = False) -> None:
        """Write down what became of finished shards, and forget their lists."""
        rows = self.lists.finished()
        if not rows:
            return
        for row, tally in self.ledger.record(rows, last):
            self.lists.remove(row)
            self.report.shards += 1
            self.report.fetched += tally[None]
            self._failed.update({why: n for why, n in tally.items() if why is not None})


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
