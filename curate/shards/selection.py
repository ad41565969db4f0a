"""Choose samples: look the uids of a subset up in the indexes of tars, put them in order.

What comes out is the same for a view, which only writes it down, and for a build, which copies
the bytes as well. Order without a seed is that of the tars, so that reading is sequential.

Memory does not grow with subset and index. A subset of one part is looked up while the index is
read. Of a larger one the rows of the index are first sorted out by part, on the disk.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, UsageError
from ...pools.ranges import Stamp
from ...pools.tar import BLOCK
from ...pools.uids import UidArray, to_hex
from ..subset import Lookup
from .buckets import Buckets
from .columns import damaged, dictionary, integers, uid_records
from .index import Index
from .missing import Missing
from .order import MAX_COPIES, Places, round_weights
from .ordered import RECORD, Ordered, Records, uids_of
from .sieve import Sieve
from .wanted import Wanted
from .weights import Weights

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 3

NOT_IN_SOURCE = "not_in_source"
NO_IMAGE = "no_image"
UNREADABLE = "unreadable"
EARLIER_SOURCE = "uid_in_earlier_source"

_REASONS = {
    NOT_IN_SOURCE: "not in {source}",
    NO_IMAGE: "without an image at hand",
    UNREADABLE: "with an image that cannot be read",
}


class NothingThereError(DataError):
    """A source has none of the samples wanted."""


@dataclass
class Selection:
    """Samples in order, as places in files; and what was not to be had.

    ``weighed_out`` counts the uids whose weight gave no repetition, ``repeated`` those that an
    earlier source has as well.
    """

    files: list[Stamp]
    sources: list[Index]
    ordered: Ordered
    missing: Missing
    weighed_out: int = 0
    repeated: int = 0

    def __len__(self) -> int:
        return self.ordered.total

    def records(self, first: int, last: int) -> Records:
        """Return the records of the places [first, last)."""
        return self.ordered.read(first, min(last, len(self)))

    @property
    def bytes(self) -> int:
        """The bytes of the samples as they lie in the tars."""
        return self.ordered.blocks * BLOCK

    @property
    def set_aside(self) -> dict[str, int]:
        """How many samples and tars of the sources are left out, by reason."""
        counts = sum((index.set_aside for index in self.sources), Counter())
        counts[EARLIER_SOURCE] = self.repeated
        return dict(+counts)

    def identity(self) -> dict[str, Any]:
        """Return what names the samples: their indexes and what is missing of them."""
        return {
            "sources": [index.sha256 for index in self.sources],
            "missing": self.missing.identity(),
        }


def choose(sources: list[Index], wanted: Wanted, folder: Path) -> Selection:
    """Find the wanted samples in the tars of some indexes.

    Uids that are nowhere, or in two sources, are an error; with ``keep_going`` the first are
    listed as missing, and the first source has the second. What weights leave out is as asked,
    and only counted. What memory does not hold lies in ``folder`` meanwhile, in files without a
    name. Raises DataError, UsageError.
    """
    if wanted.mix and len(wanted.mix) != len(sources):
        raise UsageError(f"{len(wanted.mix)} mixing weights for {len(sources)} sources")
    if not all(0 <= weight <= MAX_COPIES for weight in wanted.mix):
        raise UsageError(f"a mixing weight is a number from 0 to {MAX_COPIES:,}")
    spans = wanted.parts()
    sieve = _sieve(wanted, spans) if len(spans) > 1 else None
    rows = None if sieve is None else _Sorted(sources, sieve, folder)
    weights = None
    if wanted.weights is not None:
        weights = Weights(wanted.weights, sieve, folder)
    del sieve  # 64 MB
    tars = [(shard.rows, shard.size) for index in sources for shard in index.shards]
    ordered = Ordered(tars, wanted.shuffle, folder)
    missing = Reasons(wanted, folder)
    weighed_out = repeated = 0
    for number, span in enumerate(spans):
        part = _Part(wanted, number, span, weights)
        for source, found, at in part.scan(sources) if rows is None else part.among(rows):
            records, places = part.take(source, found, at, str(sources[source].directory))
            repeated += len(found) - len(records)
            counts = part.counts(records, places, source)
            weighed_out += len(counts) - int(np.count_nonzero(counts))
            ordered.add(records, counts)
        part.settle()
        missing.add(part.uids, {NOT_IN_SOURCE: ~part.known})
    missing.refuse(", ".join(str(index.directory) for index in sources))
    if weights is not None:
        weights.require_all()
    if not ordered.total:
        raise DataError(f"{wanted.subset}: every sample has the weight 0; there is nothing left")
    files = [stamp for index in sources for stamp in index.stamps]
    return Selection(files, sources, ordered, missing.found, weighed_out, repeated)


class Reasons:
    """Collects uids that cannot be had; they are an error unless the caller wants to go on."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        self._wanted = wanted
        self.found = Missing(folder)
        self._shown: dict[str, list[str]] = {}

    def add(self, uids: UidArray, reasons: dict[str, NDArray[np.bool_]]) -> None:
        """Add those of the uids, sorted, shape (n,), for which a reason is true."""
        for reason, mask in reasons.items():
            lacking = uids[mask]
            shown = self._shown.setdefault(reason, [])
            shown += to_hex(lacking[: LISTED - len(shown)])
            self.found.add(lacking, reason)

    def refuse(self, where: str) -> None:
        """Raise NothingThereError, or DataError where nothing may be left out."""
        wanted, count = self._wanted, len(self.found)
        if count == len(wanted):
            raise NothingThereError(
                f"{where}: none of the {count:,} uids of {wanted.subset} can be had from it"
            )
        if not count or wanted.keep_going:
            return
        parts = []
        for reason, number in self.found.reasons().items():
            shown = ", ".join(self._shown[reason]) + (", ..." if number > LISTED else "")
            parts.append(f"{number:,} {_REASONS[reason].format(source=where)} ({shown})")
        raise DataError(
            f"{wanted.subset}: of {len(wanted):,} uids {'; '.join(parts)}; "
            "--keep-going leaves them out"
        )


# -- looking up ------------------------------------------------------------------------------


class _Part:
    """Some uids of the subset, and which of them were found."""

    def __init__(
        self, wanted: Wanted, number: int, span: tuple[int, int], weights: Weights | None
    ) -> None:
        self._wanted, self._number = wanted, number
        self.uids, self._counts = wanted.part(*span)
        self._lookup = Lookup(self.uids)
        self._weights = None
        if weights is not None:
            self._weights = weights.of(number, self.uids, self._lookup)
        self._source: NDArray[np.uint32] = np.zeros(len(self.uids), np.uint32)
        """Of each uid one more than the last source that has it."""
        self._at: tuple[int, str] | None = None
        self._found = 0

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which uids were found, shape (n,)."""
        return self._source > 0

    def scan(self, sources: list[Index]) -> Iterator[tuple[int, Records, Places]]:
        """Yield (source, records, places in this part) of all samples of some indexes."""

        def keep(uids: UidArray) -> tuple[NDArray[np.int64], Places]:
            places = self._lookup.find(uids)
            rows = np.flatnonzero(places >= 0)
            return rows, places[rows]

        return _scan(sources, keep)

    def among(self, rows: _Sorted) -> Iterator[tuple[int, Records, Places]]:
        """Yield the same of rows that were sorted out."""
        for source, records in rows.of(self._number):
            places = self._lookup.find(uids_of(records))
            found = np.flatnonzero(places >= 0)
            yield source, records[found], places[found]

    def take(
        self, source: int, records: Records, places: Places, where: str
    ) -> tuple[Records, Places]:
        """Note what was found; return that of it which no earlier source has."""
        if self._at is None or self._at[0] != source:
            self.settle()
            self._at = source, where
        self._found += len(places)
        if not source:
            self._source[places] = 1
            return records, places
        before = self._source[places]
        new = (before == 0) | (before == source + 1)
        if not new.all() and not self._wanted.keep_going:
            shown = ", ".join(to_hex(self.uids[places[~new]][:LISTED]))
            raise DataError(
                f"{where}: has samples that an earlier source has as well ({shown}); "
                "--keep-going takes the first"
            )
        self._source[places] = source + 1
        return (records, places) if new.all() else (records[new], places[new])

    def settle(self) -> None:
        """Raise DataError if a uid stands twice in the index that was looked at last."""
        if self._at is not None:
            source, where = self._at
            if np.count_nonzero(self._source == source + 1) != self._found:
                raise damaged(where)
        self._found = 0

    def counts(self, records: Records, places: Places, source: int) -> Places:
        """Return how often each sample found is to be there, shape (n,)."""
        wanted, counts = self._wanted, self._counts[places]
        if self._weights is None and not wanted.mix:
            return counts
        weights = counts.astype(np.float64)
        if self._weights is not None:
            weights *= np.nan_to_num(self._weights[places])  # none is an error in the end
        if wanted.mix:
            weights *= wanted.mix[source]
        if weights.max(initial=0) > MAX_COPIES:
            raise DataError(
                f"{wanted.subset}: a sample would be repeated over {MAX_COPIES:,} times"
            )
        return round_weights(uids_of(records), weights)


class _Sorted:
    """The rows of some indexes that may be wanted, sorted out by the parts of the subset."""

    def __init__(self, sources: list[Index], sieve: Sieve, folder: Path) -> None:
        self._rows = Buckets(sieve.parts, RECORD, folder)
        self._ends = np.cumsum([len(index.shards) for index in sources])
        for _, records, parts in _scan(sources, sieve.find):
            self._rows.add(parts, records)

    def of(self, part: int) -> Iterator[tuple[int, Records]]:
        """Yield (source, records) of a part, in the order of the sources."""
        for records in self._rows.pieces(part, part + 1):
            sources = np.searchsorted(self._ends, records["file"], "right")
            cuts = [0, *(np.flatnonzero(np.diff(sources)) + 1).tolist(), len(records)]
            for first, last in itertools.pairwise(cuts):
                yield int(sources[first]), records[first:last]


def _sieve(wanted: Wanted, spans: list[tuple[int, int]]) -> Sieve:
    starts = [int(wanted.file.read(first, 1)["f0"][0]) for first, _ in spans[1:]]
    return Sieve(wanted.blocks(), wanted.selected, starts)


def _scan(
    sources: list[Index], keep: Callable[[UidArray], tuple[NDArray[np.int64], NDArray[Any]]]
) -> Iterator[tuple[int, Records, NDArray[Any]]]:
    """Yield (source, records, what is known of each) of those rows that are to be kept.

    ``keep`` is called in threads.
    """
    first_file = 0
    for source, index in enumerate(sources):
        where = str(index.directory)
        numbers = {shard.name: first_file + n for n, shard in enumerate(index.shards)}
        first_file += len(index.shards)

        def kept(
            batch: pa.RecordBatch, where: str = where, numbers: dict[str, int] = numbers
        ) -> tuple[Records, NDArray[Any]]:
            uids = uid_records(batch["uid"], where)
            rows, known = keep(uids)
            return _records(batch, uids, rows, numbers, where), known

        for records, known in index.scan(("uid", "shard", "offset", "length"), kept):
            yield source, records, known


def _records(
    batch: pa.RecordBatch, uids: UidArray, rows: NDArray[np.int64], numbers: dict[str, int],
    where: str,
) -> Records:  # fmt: skip
    """Return records of some rows of an index; what cannot be is a DataError."""
    names, codes = dictionary(batch["shard"], where)
    try:
        file = np.array([numbers[name] for name in names], np.uint32)[codes[rows]]
    except KeyError:
        raise damaged(where) from None
    offset, length = (integers(batch[name], where)[rows] for name in ("offset", "length"))
    blocks = (offset | length) // BLOCK
    if ((offset | length) % BLOCK).any() or (blocks < 0).any() or (blocks >> 32).any():
        raise damaged(where)
    records = np.zeros(len(rows), RECORD)
    records["high"], records["low"] = uids["f0"][rows], uids["f1"][rows]
    records["file"], records["block"] = file, offset // BLOCK
    records["blocks"] = length // BLOCK
    return records
