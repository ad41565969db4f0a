"""Choose samples: look the uids of a subset up in the indexes of tars, put them in order.

What comes out is the same for a view, which only writes it down, and for a build, which copies
the bytes as well. Order without a seed is that of the tars, so that reading is sequential.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...durable import digest, sha256_file
from ...errors import DataError, MissingError, UsageError
from ...pools.ranges import Stamp
from ...pools.tar import BLOCK
from ...pools.uids import UidArray, digest_of_uids, load_subset, to_hex
from ...pools.views import FIELDS
from ..subset import Lookup, multiplicities
from .index import Index
from .order import MAX_COPIES, Places, order_samples, round_weights
from .storage import uid_records

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = np.dtype(list(FIELDS))
Records = NDArray[np.void]

SHARD_SIZE = 10_000
MAX_SAMPLES = 1 << 32
LISTED = 3

NOT_IN_SOURCE = "not_in_source"
NO_IMAGE = "no_image"
UNREADABLE = "unreadable"
NO_WEIGHT = "weight_zero"

_REASONS = {
    NOT_IN_SOURCE: "not in {source}",
    NO_IMAGE: "without an image at hand",
    UNREADABLE: "with an image that cannot be read",
}


@dataclass(frozen=True)
class Wanted:
    """A subset and the options that say how often and in which order its samples are wanted."""

    subset: Path
    selected: int
    digest: str
    uids: UidArray
    counts: Places
    weights: Path | None = None
    mix: tuple[float, ...] = ()
    shard_size: int = SHARD_SIZE
    shuffle: int | None = None
    keep_going: bool = False

    @classmethod
    def read(
        cls,
        subset: Path,
        *,
        weights: Path | None = None,
        mix: Sequence[float] = (),
        shard_size: int = SHARD_SIZE,
        shuffle: int | None = None,
        keep_going: bool = False,
    ) -> Wanted:
        """Read a subset and check the options."""
        if shard_size < 1:
            raise UsageError(f"shard size is {shard_size}, expected at least 1")
        if shuffle is not None and not 0 <= shuffle < 2**63:
            raise UsageError(f"shuffle seed is {shuffle}, expected 0 to 2**63 - 1")
        ids = load_subset(subset)
        if not len(ids):
            raise DataError(f"{subset}: the subset is empty; there is nothing to build")
        uids, counts = multiplicities(ids)
        return cls(
            subset, len(ids), digest_of_uids(ids), uids, counts, weights, tuple(mix), shard_size,
            shuffle, keep_going,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Return what decides about the samples, besides their source; the same on any machine."""
        return {
            "subset": {"count": self.selected, "digest": self.digest},
            "weights": None if self.weights is None else sha256_file(self.weights),
            "mix": list(self.mix) or None,
            "shard_size": self.shard_size,
            "shuffle": self.shuffle,
        }


class Found:
    """For each uid the number of its source (-1: none) and file, first block, blocks."""

    def __init__(self, count: int) -> None:
        self.source = np.full(count, -1, np.int32)
        self.file, self.block, self.blocks = np.zeros((3, count), np.uint32)


@dataclass
class Selection:
    """Samples in order, as places in files; and what was not to be had.

    ``order`` and ``copy``, shape (n,), say which uid stands at each place, and which repetition
    of it. Records are made when they are asked for, so that memory holds few of them.
    """

    files: list[Stamp]
    sources: list[Index]
    uids: UidArray
    found: Found
    order: Places
    copy: NDArray[np.uint32]
    selected: int
    missing: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.order)

    def records(self, first: int, last: int) -> Records:
        """Return the records of the places [first, last)."""
        order = self.order[first:last]
        records = np.empty(len(order), RECORD)
        records["high"], records["low"] = self.uids["f0"][order], self.uids["f1"][order]
        records["file"], records["block"] = self.found.file[order], self.found.block[order]
        records["blocks"], records["copy"] = self.found.blocks[order], self.copy[first:last]
        return records

    @property
    def bytes(self) -> int:
        """The bytes of the samples as they lie in the tars."""
        return int(self.found.blocks[self.order].sum(dtype=np.int64)) * BLOCK

    def identity(self) -> dict[str, Any]:
        """Return what names the samples: their indexes and what is missing of them."""
        return {
            "sources": [index.sha256 for index in self.sources],
            "missing": {"count": len(self.missing), "digest": digest(self.missing)},
        }


def choose(sources: list[Index], wanted: Wanted) -> Selection:
    """Find the wanted samples in the tars of some indexes.

    Uids that are nowhere, or in two sources, are an error; with ``keep_going`` the first are
    listed as missing, and the first source has the second. Raises DataError, UsageError.
    """
    if wanted.mix and len(wanted.mix) != len(sources):
        raise UsageError(f"{len(wanted.mix)} mixing weights for {len(sources)} sources")
    if not all(0 <= weight <= MAX_COPIES for weight in wanted.mix):
        raise UsageError(f"a mixing weight is a number from 0 to {MAX_COPIES:,}")
    uids = wanted.uids
    found = Found(len(uids))
    files: list[Stamp] = []
    for number, index in enumerate(sources):
        _look_up(index, number, len(files), uids, found, wanted.keep_going)
        files += index.stamps
    where = ", ".join(str(index.directory) for index in sources)
    missing = missing_of(wanted, {NOT_IN_SOURCE: found.source < 0}, where)
    counts = _counts(wanted, found.source)
    total = int(counts.sum())
    if not total:
        raise DataError(f"{wanted.subset}: every sample has the weight 0; there is nothing left")
    if total > MAX_SAMPLES:
        raise DataError(f"{wanted.subset}: {total:,} samples with repetitions; that is too many")
    if wanted.weights is not None or 0 in wanted.mix:
        zero = (counts == 0) & (found.source >= 0)
        missing += [(uid, NO_WEIGHT) for uid in to_hex(uids[zero])]
    rank = found.file.astype(np.uint64) << np.uint64(32) | found.block
    order, copy = order_samples(uids, counts, wanted.shuffle, rank)
    return Selection(files, sources, uids, found, order, copy, wanted.selected, sorted(missing))


def missing_of(
    wanted: Wanted, reasons: dict[str, NDArray[np.bool_]], where: str
) -> list[tuple[str, str]]:
    """Return (uid, reason) of what cannot be had; an error unless the caller wants to go on."""
    missing = np.logical_or.reduce(list(reasons.values()))
    if missing.all():
        raise DataError(
            f"{where}: none of the {len(wanted.uids):,} uids of {wanted.subset} can be had from it"
        )
    if missing.any() and not wanted.keep_going:
        raise _missing_error(wanted, reasons, where)
    return sorted((uid, why) for why, mask in reasons.items() for uid in to_hex(wanted.uids[mask]))


def _missing_error(wanted: Wanted, reasons: dict[str, NDArray[np.bool_]], where: str) -> DataError:
    parts = []
    for reason, mask in reasons.items():
        count = int(mask.sum())
        if count:
            shown = ", ".join(to_hex(wanted.uids[mask][:LISTED]))
            shown += ", ..." if count > LISTED else ""
            parts.append(f"{count:,} {_REASONS[reason].format(source=where)} ({shown})")
    return DataError(
        f"{wanted.subset}: of {len(wanted.uids):,} uids {'; '.join(parts)}; "
        "--keep-going leaves them out"
    )


# -- looking up ------------------------------------------------------------------------------


def _look_up(
    index: Index, source: int, first_file: int, uids: UidArray, found: Found, keep_going: bool
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    lookup = Lookup(uids)
    names = pa.array([shard.name for shard in index.shards], pa.string())

    def match(table: pa.Table) -> tuple[NDArray[np.int64], ...]:
        places = lookup.find(uid_records(table["uid"], str(index.directory)))
        rows = np.flatnonzero(places >= 0)
        file = pc.index_in(table["shard"].cast(pa.string()).take(rows), names).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
        offset, length = (table[name].to_numpy()[rows] for name in ("offset", "length"))
        if ((offset | length) % BLOCK).any() or (offset < 0).any() or (length < 0).any():
            raise DataError(f"{index.directory}: its index is damaged; index again")
        return places[rows], file, offset // BLOCK, length // BLOCK

    for places, *columns in index.scan(("uid", "shard", "offset", "length"), match):
        twice = found.source[places] >= 0
        if twice.any() and not keep_going:
            shown = ", ".join(to_hex(uids[places[twice]][:LISTED]))
            raise DataError(
                f"{index.directory}: has samples that an earlier source has as well ({shown}); "
                "--keep-going takes the first"
            )
        new = places[~twice]
        file, block, blocks = (column[~twice] for column in columns)
        found.source[new] = source
        found.file[new] = file + first_file
        found.block[new], found.blocks[new] = block, blocks


# -- how often -------------------------------------------------------------------------------


def _counts(wanted: Wanted, source: NDArray[np.int32]) -> Places:
    counts = np.where(source < 0, 0, wanted.counts)
    if wanted.weights is None and not wanted.mix:
        return counts
    weights = counts.astype(np.float64)
    if wanted.weights is not None:
        weights *= _weights(wanted.weights, wanted.uids)
    if wanted.mix:
        weights *= np.array([*wanted.mix, 0.0])[source]
    if weights.max(initial=0) > MAX_COPIES:
        raise DataError(f"{wanted.subset}: a sample would be repeated over {MAX_COPIES:,} times")
    return round_weights(wanted.uids, weights)


def _weights(path: Path, uids: UidArray) -> NDArray[np.float64]:
    """Return the weight of each uid from a parquet file of (uid, weight)."""
    lookup = Lookup(uids)
    weights = np.full(len(uids), np.nan)
    for batch in _weight_batches(path):
        values = batch["weight"].to_numpy(zero_copy_only=False).astype(np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(f"{path}: a weight is negative or no number")
        places = lookup.find(uid_records(batch["uid"], str(path)))
        known = places[places >= 0]
        if len(np.unique(known)) < len(known) or not np.isnan(weights[known]).all():
            raise DataError(f"{path}: a uid stands there twice")
        weights[known] = values[places >= 0]
    lacking = np.isnan(weights)
    if lacking.any():
        shown = ", ".join(to_hex(uids[lacking][:LISTED]))
        raise DataError(f"{path}: has no weight for {int(lacking.sum()):,} uids ({shown})")
    return weights


def _weight_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise MissingError(f"{path}: no such file of weights")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not {"uid", "weight"} <= set(names):
                raise DataError(
                    f"{path}: has the columns {', '.join(names)}, but weights need uid and weight"
                )
            yield from file.iter_batches(100_000, columns=["uid", "weight"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable weights: {str(error).splitlines()[0]}") from None
