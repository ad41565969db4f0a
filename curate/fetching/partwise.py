"""A folder of metadata as what is fetched: file after file, without a pool of the whole.

Each file is opened as a pool of its own, in memory, with what became of its URLs before, and its
samples go to shards of their own. Some files at a time are listed, as many as keep the workers at
work: neither this process nor the disk ever holds the lists of all.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...durable import read_json, sha256_file, write_json
from ...errors import DataError, UsageError
from ...pools import fetches
from ...pools.adding import expect_again
from ...pools.engine import Engine
from ...pools.file_stamps import FileStamp
from ...pools.partitions import Partition, open_partition, partition_name, partitions_of
from ...pools.pool import Pool
from ...pools.uids import members_of
from ...progress import warn
from . import outcome_files as kept
from .folder import bind_metadata
from .job import FetchOptions, Row
from .ledger import Tally, tally_of, tell_about_boxes
from .lists import Lists, Part, Request, check_verify, plan, write_lists
from .reasons import matches

WAVE = 16
"""About how many shards for each worker are listed at a time."""
_RETRYING = ".retrying.json"
_MADE = "outcomes.parquet"
_LIMIT = 1 << 20


@dataclass(frozen=True)
class PartWork:
    """A file of metadata to list: into which folder, by which columns and options.

    ``outcomes`` are read; those that have changed are written into the folder, too.
    """

    partition: Partition
    name: str
    columns: dict[str, str]
    options: FetchOptions
    outcomes: Path
    into: Path
    threads: int | None


def list_part(work: PartWork) -> kept.Metadata:
    """List what of a file of metadata is to be fetched, in a worker.

    What became of URLs before is brought up to date if the file has changed: what failed is to be
    fetched again, what is no longer there is forgotten. A fetch of some URLs only leaves that, and
    the stamp the file had, to one of all. Raises UsageError where no sample is known.
    """
    options = work.options
    file = work.partition.file
    before = kept.read_summary(work.outcomes)
    with open_partition(work.partition, work.columns, work.threads) as pool:
        kept.load(pool, work.outcomes)
        urls = pool.scalar("SELECT count(DISTINCT uid) FROM samples WHERE coalesce(url, '') <> ''")
        now = kept.Metadata(**asdict(FileStamp.of(file)), urls=urls)
        if before is not None and before.of.sha256 != now.sha256:
            _expect_known(pool, work)
            if options.retry or options.subset is not None:
                now = before.of
            else:
                _bring_up_to_date(pool)
        if before is not None and before.of != now:
            kept.save(pool, work.into / _MADE, now, before.shards)
        subset = None
        if options.subset is not None:
            own = pool.uids()
            # Checked by the driver, and too large to be read by each.
            wanted = np.load(options.subset, mmap_mode="r", allow_pickle=False)
            subset = own[members_of(own, wanted)]
        if plan(pool, options, subset):
            write_lists(pool, options, work.into)
    return now


@dataclass(frozen=True)
class PartDone:
    """A file of metadata, lists of it whose shards in ``out`` are whole, and its outcomes.

    ``outcomes`` are those before, ``made`` is where those after are written.
    """

    part: Part
    rows: list[Row]
    out: Path
    outcomes: Path
    made: Path


def record_part(work: PartDone) -> list[Tally]:
    """Write down what became of the URLs of some shards of a file, in a worker; return tallies."""
    tallies: list[Tally] = []
    lists, before = Lists(work.out), kept.read_summary(work.outcomes)
    shards = {(work.part.first, work.part.end), *([] if before is None else before.shards)}
    with kept.no_samples(work.outcomes) as pool:
        kept.load(pool, work.outcomes)
        for row in work.rows:
            outcomes, ended = lists.outcomes(row)
            fetches.record(pool, outcomes, ended)
            tallies.append(tally_of(outcomes))
        kept.save(pool, work.made, work.part.metadata, sorted(shards))
    return tallies


def _expect_known(pool: Pool, work: PartWork) -> None:
    known = pool.scalar("SELECT count(*) FROM fetches")
    if known and not pool.scalar("SELECT count(*) FROM fetches SEMI JOIN samples USING (uid)"):
        raise UsageError(
            f"{work.partition.file}: has no sample that {work.outcomes} knows, so the images there "
            "are of other metadata; choose another folder"
        )


def _bring_up_to_date(pool: Pool) -> None:
    pool.sql("DELETE FROM fetches WHERE uid NOT IN (SELECT uid FROM samples)")
    expect_again(pool.connection, "SELECT uid FROM samples")


class PartwiseLedger:
    """The files of a folder of metadata, and the outcomes of each beside the shards."""

    once = False

    def __init__(
        self, folder: Path, lists: Lists, options: FetchOptions, engine: Engine, workers: int
    ) -> None:
        self._folder, self._lists, self._options = folder, lists, options
        self._engine, self._workers = engine, workers
        self.set_aside: dict[str, int] = {}
        self._samples = 0
        self._columns: dict[str, str] = {}
        self._partitions: dict[str, Partition] = {}
        self._left: list[Part] = []

    def begin(self) -> int:
        """Look at the footers of the metadata, and take the folder of shards for them.

        Raises UsageError for a folder of shards that is another's, DataError without URLs.
        """
        with Pool.open(self._folder) as pool:
            self._samples, self._columns = pool.count(), pool.columns()
            found = partitions_of(pool)
            aside = pool.sql("SELECT item, reason, detail FROM set_aside ORDER BY item").fetchall()
            check_verify(pool, self._options)
            if not pool.scalar("SELECT 1 FROM samples WHERE coalesce(url, '') <> '' LIMIT 1"):
                raise DataError(f"{self._folder}: has no URLs to fetch (column url)")
            bind_metadata(self._lists.out, self._options)
            tell_about_boxes(pool, self._options)
        self._partitions = {one.name: one for one in found}
        self._left = self._lists.parts()
        self._expect_ours({partition_name(Path(item)) for item, _, _ in aside})
        self._tell_about(aside)
        places = {one.file.parent for one in found}
        subset = [] if self._options.subset is None else [self._options.subset]
        self._engine.reach(*sorted(places), *subset)
        return self.totals()[1]

    def _expect_ours(self, aside: set[str]) -> None:
        """Raise UsageError where images, or lists that are left, are of other metadata."""
        place, here = self._outcomes(), self._partitions.keys() | aside
        there = {str(path.relative_to(place)) for path in place.rglob("*.parquet")}
        gone = sorted(there - here)
        # A file may have gone, but all that are there may not be others of the same names.
        if gone and not any(self._is_as_it_was(name) for name in there & self._partitions.keys()):
            raise UsageError(
                f"{self._lists.out}: holds the images of other metadata ({gone[0]}); choose "
                "another folder"
            )
        left = sorted({part.name for part in self._left} - here)
        if left:
            raise UsageError(
                f"{self._lists.out}: an interrupted fetch of other metadata ({left[0]}) is to be "
                "finished there; choose another folder"
            )

    def _is_as_it_was(self, name: str) -> bool:
        file, summary = self._partitions[name].file, kept.read_summary(self._place(name))
        if summary is None or summary.of.untouched(file):
            return summary is not None
        # Copied, perhaps.
        return file.stat().st_size == summary.of.size and sha256_file(file) == summary.of.sha256

    def _tell_about(self, aside: list[tuple[str, str, str]]) -> None:
        """Count and name the files of metadata that cannot be read."""
        self.set_aside = dict(sorted(Counter(reason for _, reason, _ in aside).items()))
        if aside:
            item, _, detail = aside[0]
            more = f" and {len(aside) - 1:,} more" if len(aside) > 1 else ""
            warn(f"{self._folder}: not fetched, for it cannot be read: {item} ({detail}){more}")

    def lay_down(self, request: Request, asked: dict[str, Any] | None) -> Iterator[None]:
        """Write the lists of some files at a time, until there is nothing to fetch in any."""
        through = self._retried(request, asked)
        names = list(self._partitions)
        wave: list[str] = []
        shards = 0
        for name in names[names.index(through) + 1 if through in names else 0 :]:
            count = self._expected(name, request)
            if count:
                wave.append(name)
                shards += -(-count // self._options.per_shard)
            if shards >= WAVE * self._workers or (wave and name == names[-1]):
                listed = self._lay_down_some(wave, request)
                if request.retry:
                    state = {"request": request.to_dict(), "through": name}
                    write_json(self._lists.out / _RETRYING, state)
                if listed:
                    yield
                wave, shards = [], 0
        (self._lists.out / _RETRYING).unlink(missing_ok=True)

    def _retried(self, request: Request, asked: dict[str, Any] | None) -> str | None:
        """Return the last file of which an interrupted retry was that asked for just this."""
        path = self._lists.out / _RETRYING
        if not request.retry:
            path.unlink(missing_ok=True)
            return None
        state = read_json(path, _LIMIT) if path.exists() else {}
        if not isinstance(state, dict):
            raise DataError(f"{path}: damaged; remove it, and --retry begins at the first file")
        if state.get("request") != request.to_dict():
            path.unlink(missing_ok=True)
            state = {}
        if asked == request.to_dict() and self._left:
            return self._left[-1].name
        return state.get("through")

    def _expected(self, name: str, request: Request) -> int:
        """Return how many URLs of a file are to be fetched at most, from footers alone."""
        import pyarrow.parquet as pq

        file, summary = self._partitions[name].file, kept.read_summary(self._place(name))
        if summary is None or not summary.of.untouched(file):
            if summary is None and request.retry:
                return 0
            return pq.read_metadata(file).num_rows
        if request.retry:
            return sum(n for why, n in summary.failed.items() if matches(request.retry, why))
        return summary.of.urls - summary.available - sum(summary.failed.values())

    def _lay_down_some(self, names: Sequence[str], request: Request) -> bool:
        """Write the lists of some files, whose shards follow one another; tell if there are any."""
        with self._lists.laying_down(request) as partial:
            first = self._lists.next_number()
            # A worker that was taken for dead may still be at files of those before.
            work = [
                PartWork(
                    self._partitions[name], name, self._columns, self._options,
                    self._place(name).absolute(),
                    partial.absolute() / f"{first}-{self._partitions[name].number}",
                    1 if self._engine.distributed else None,
                )
                for name in names
            ]  # fmt: skip
            for one in work:
                one.into.mkdir()
            parts: list[Part] = []
            found = self._engine.map(list_part, work, count=len(work))
            for one, metadata in zip(work, found, strict=True):
                end = self._lists.take(partial, one.into, first)
                if (one.into / _MADE).exists():
                    kept.take(one.into / _MADE, one.outcomes)
                if end > first:
                    parts.append(Part(one.name, first, end, metadata))
                shutil.rmtree(one.into)
                first = end
            self._lists.write_parts(partial, parts)
        if not parts:
            self._lists.clear()
        return bool(parts)

    def record(self, rows: list[Row], last: bool) -> Iterator[tuple[Row, Tally]]:
        """Write down the outcomes of a file when all of its shards are whole."""
        left = [number for number, _ in self._lists.rows()]
        work: list[PartDone] = []
        for part in self._lists.parts():
            mine = [row for row in rows if part.first <= row[0] < part.end]
            there = sum(part.first <= number < part.end for number in left)
            if mine and (last or len(mine) == there):
                out, place = self._lists.out.absolute(), self._place(part.name).absolute()
                # Others of the same file may be left for later.
                made = self._lists.folder.absolute() / f"{mine[0][0]}-{len(mine)}-{_MADE}"
                work.append(PartDone(part, mine, out, place, made))
        for one, tallies in zip(work, self._engine.map(record_part, work), strict=True):
            kept.take(one.made, one.outcomes)
            yield from zip(one.rows, tallies, strict=True)

    def totals(self) -> tuple[int, int]:
        """Add up the footers of the outcomes."""
        found = (kept.read_summary(self._place(name)) for name in self._partitions)
        return self._samples, sum(one.available for one in found if one is not None)

    def _outcomes(self) -> Path:
        return self._lists.out / kept.FOLDER

    def _place(self, name: str) -> Path:
        return self._outcomes() / name
