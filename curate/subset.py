"""Set algebra on subset files, and the sidecar that says how a subset came about.

A subset is a sorted array of 128-bit uids in which a uid that stands k times is to be seen k
times (its multiplicity). All operations here respect multiplicities:

* ``union``: as often as in the input that has it most often;
* ``intersect``: as often as in the input that has it least often;
* ``minus``: what B names goes away altogether, the rest of A stays as often as it was;
* ``diff``: only in A, only in B, and in both (the last as ``intersect``).

Without repetitions these are the operations on sets. Files are walked through a little at a
time, however large they are. Beside ``NAME.npy`` stands ``NAME.json``, its sidecar: count and
digest of the uids, the pool they are from, the pipeline and its funnel, the files they were
computed from, and the version of datacomp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..durable import read_json, write_json
from ..errors import DataError, IntegrityError, UsageError
from ..pools.merging import Counted, Counts, Merged, merge_order, spread, walk
from ..pools.parallel import map_threads
from ..pools.subset_files import SubsetFile, SubsetWriter, subset_writer
from ..pools.uid_sorter import UidSorter
from ..pools.uids import (
    RECORD,
    UID_DTYPE,
    UidArray,
    joined_uids,
    save_subset,
    starts_of,
    to_hex,
)

FORMAT = "datacomp-subset"
VERSION = 1
PROVENANCE = ("pool", "pipeline", "funnel", "inputs")
MAX_SIDECAR_BYTES = 64 << 20
DEEP = 64
"""Uids that share a prefix, above which binary search is faster than looking at each."""
BLOCK = 1 << 18


# -- algebra on counted uids -----------------------------------------------------------------


def tally(a: Counted, b: Counted) -> tuple[UidArray, Counts, Counts]:
    """Return the distinct uids of two that are sorted and counted, shape (k,), with both counts."""
    joined = joined_uids([a[0], b[0]])
    order = merge_order(joined)
    uids = joined.view(RECORD).take(order).view(UID_DTYPE)
    starts = starts_of(uids)
    of_a = order < len(a[0])
    counts = np.concatenate([a[1], b[1]])[order]
    in_a = np.where(of_a, counts, 0)[starts]
    in_b = np.where(of_a, 0, counts)[starts]
    twice = np.flatnonzero(np.diff(starts, append=len(uids)) > 1)  # A's comes first
    in_b[twice] = counts[starts[twice] + 1]
    return uids.view(RECORD).take(starts).view(UID_DTYPE), in_a, in_b


_TIMES: dict[str, Callable[[Counts, Counts], Counts]] = {
    "union": np.maximum,
    "intersect": np.minimum,
    "minus": lambda in_a, in_b: np.where(in_b > 0, 0, in_a),
}


def _parts(in_a: Counts, in_b: Counts) -> dict[str, Counts]:
    return {
        "only_a": _TIMES["minus"](in_a, in_b),
        "only_b": _TIMES["minus"](in_b, in_a),
        "both": _TIMES["intersect"](in_a, in_b),
    }


def _apply(operation: str, a: Counted, b: Counted) -> Counted:
    uids, in_a, in_b = tally(a, b)
    return _kept(uids, _TIMES[operation](in_a, in_b))


def _kept(uids: UidArray, counts: Counts) -> Counted:
    kept = np.flatnonzero(counts)
    return uids.view(RECORD).take(kept).view(UID_DTYPE), counts[kept]


class Lookup:
    """Finds uids in a sorted array without repetitions, all at once.

    Uids are hashes, so their first bits say nearly where they stand: a table of where each
    prefix starts leaves one or two to compare. Where they are not (a prefix that many share),
    binary search takes over.
    """

    def __init__(self, ordered: UidArray) -> None:
        self._high, self._low = ordered["f0"], ordered["f1"]
        bits = max(1, min(24, len(ordered).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._starts = np.zeros((1 << bits) + 1, np.uint32 if len(ordered) < 1 << 32 else np.int64)
        for first in range(0, len(ordered), BLOCK):  # few at a time: a large subset fills memory
            prefix = (self._high[first : first + BLOCK] >> self._shift).astype(np.int64)
            counts = np.bincount(prefix - prefix[0])
            self._starts[prefix[0] + 1 : prefix[-1] + 2] += counts.astype(self._starts.dtype)
        self._deepest = int(self._starts.max())
        np.cumsum(self._starts, out=self._starts)

    def find(self, uids: UidArray) -> Counts:
        """Return where each uid stands in the sorted array, -1 where it does not, shape (n,)."""
        high, low = np.ascontiguousarray(uids["f0"]), np.ascontiguousarray(uids["f1"])
        if self._deepest > DEEP:
            return self._search(high, low)
        places = np.full(len(uids), -1, np.int64)
        prefix = (high >> self._shift).astype(np.int64)
        at, end = self._starts[prefix], self._starts[prefix + 1]
        rows = np.flatnonzero(at < end)
        at, end = at[rows], end[rows]
        while len(rows):
            same = (self._high[at] == high[rows]) & (self._low[at] == low[rows])
            places[rows[same]] = at[same]
            at = at + 1
            going = ~same & (at < end)
            rows, at, end = rows[going], at[going], end[going]
        return places

    def _search(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Counts:
        first = np.searchsorted(self._high, high, "left")
        last = np.searchsorted(self._high, high, "right")
        open_ones = np.flatnonzero(first < last)
        while len(open_ones):
            middle = (first[open_ones] + last[open_ones]) // 2
            below = self._low[middle] < low[open_ones]
            first[open_ones[below]] = middle[below] + 1
            last[open_ones[~below]] = middle[~below]
            open_ones = open_ones[first[open_ones] < last[open_ones]]
        places = np.minimum(first, len(self._high) - 1)
        found = (self._high[places] == high) & (self._low[places] == low)
        return np.where(found, places, -1).astype(np.int64)


# -- files and their sidecars ----------------------------------------------------------------


@dataclass(frozen=True)
class SubsetInfo:
    """What a subset file holds. ``multiplicities[k]`` distinct uids stand there k times."""

    path: str
    count: int
    unique: int
    multiplicities: dict[int, int]
    first: str | None
    last: str | None
    digest: str
    sidecar: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def info(path: Path | str, held: int = BLOCK) -> SubsetInfo:
    """Describe a subset file; a sidecar that describes other uids is an IntegrityError."""
    path = Path(path)
    file = SubsetFile.of(path)
    digest = file.verify()
    sidecar = read_sidecar(path)
    _check_sidecar(path, sidecar, digest)
    frequency: Counter[int] = Counter()
    for ((_, counts),) in walk([file], held):
        times, seen = np.unique(counts, return_counts=True)
        frequency.update(dict(zip(times.tolist(), seen.tolist(), strict=True)))
    return SubsetInfo(
        path=str(path),
        count=file.count,
        unique=frequency.total(),
        multiplicities=dict(sorted(frequency.items())),
        first=to_hex(file.read(0, 1))[0] if file.count else None,
        last=to_hex(file.read(file.count - 1, 1))[0] if file.count else None,
        digest=digest,
        sidecar=sidecar,
    )


def sidecar_path(path: Path | str) -> Path:
    """Return where the sidecar of a subset file stands: ``NAME.json`` beside ``NAME.npy``."""
    path = Path(path)
    if path.suffix != ".npy":
        raise UsageError(f"{path}: the name of a subset file must end in .npy")
    return path.with_suffix(".json")


def write_subset(
    path: Path | str, uids: UidArray | UidSorter, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Write ``NAME.npy`` and its sidecar ``NAME.json``; return what the sidecar says.

    ``provenance`` may have ``pool`` ({digest, samples}), ``pipeline``, ``funnel`` and
    ``inputs``; what is left out is null there.
    """
    _check_provenance(provenance)
    sidecar_path(path)
    if isinstance(uids, UidSorter):
        return write_sidecar(path, uids.count, uids.save(path), provenance)
    return write_sidecar(path, len(uids), save_subset(path, uids), provenance)


def _check_provenance(provenance: dict[str, Any]) -> None:
    unknown = sorted(set(provenance) - set(PROVENANCE))
    if unknown:
        raise UsageError(f"provenance has unknown keys {unknown}; known: {', '.join(PROVENANCE)}")


def write_sidecar(
    path: Path | str, count: int, digest: str, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Write the sidecar of a subset of so many uids that is there; return what it says."""
    _check_provenance(provenance)
    beside = sidecar_path(path)
    sidecar = {
        "format": FORMAT,
        "version": VERSION,
        "count": count,
        "digest": digest,
        **{key: provenance.get(key) for key in PROVENANCE},
        "datacomp": __version__,
    }
    write_json(beside, sidecar)
    return sidecar


def read_sidecar(path: Path | str) -> dict[str, Any] | None:
    """Return the sidecar of the subset file ``path``, or None if it has none.

    Raises DataError for a file beside it that is no sidecar.
    """
    beside = sidecar_path(path)
    if not beside.is_file():
        return None
    value = read_json(beside, MAX_SIDECAR_BYTES)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{beside}: not the sidecar of a subset; move it away or rename the subset")
    if value.get("version") != VERSION:
        raise DataError(
            f"{beside}: sidecar of version {value.get('version')!r}, but this datacomp knows "
            f"{VERSION}; update datacomp"
        )
    return value


def _check_sidecar(path: Path, sidecar: dict[str, Any] | None, digest: str) -> None:
    if sidecar is not None and sidecar.get("digest") != digest:
        raise IntegrityError(
            f"{sidecar_path(path)}: describes other uids than {path.name} holds; "
            "make the subset again or remove the sidecar"
        )


# -- algebra on files ------------------------------------------------------------------------


def combine(
    operation: str, paths: Sequence[Path | str], out: Path | str, held: int = BLOCK
) -> dict[str, Any]:
    """Apply union, intersect or minus to two or more files, from left to right; write ``out``.

    Returns the sidecar written. The pool is carried over when all inputs name the same. About
    ``held`` uids are in memory, however many the files have.
    """
    inputs = _read_inputs(paths)
    sidecar_path(out)
    merged = write_combined(operation, [one.file for one in inputs], out, held)
    return write_sidecar(out, merged.count, merged.digest, _provenance(operation, inputs))


def write_combined(
    operation: str, files: Sequence[SubsetFile], out: Path | str, held: int = BLOCK
) -> Merged:
    """Do as ``combine`` with files that are known to be in order; there is no sidecar."""
    with subset_writer(out) as writer:
        for pieces in walk(files, held):
            result = pieces[0]
            for other in pieces[1:]:
                result = _apply(operation, result, other)
            for part in spread(*result, held):
                writer.write(part)
    return Merged(writer.count, writer.digest)


def compare(
    a: Path | str, b: Path | str, out: Path | str | None = None, held: int = BLOCK
) -> dict[str, int]:
    """Count what is only in A, only in B and in both; write the three into folder ``out``.

    About ``held`` uids are in memory, however many the files have.
    """
    inputs = _read_inputs([a, b])
    counts: dict[str, int] = dict.fromkeys(("only_a", "only_b", "both"), 0)
    with ExitStack() as opened:
        writers: dict[str, SubsetWriter] = {}
        if out is not None:
            for name in counts:
                writer = opened.enter_context(subset_writer(Path(out) / f"{name}.npy"))
                writers[name] = writer
        for first, second in walk([one.file for one in inputs], held):
            uids, in_a, in_b = tally(first, second)
            for name, times in _parts(in_a, in_b).items():
                counts[name] += int(times.sum())
                if name in writers:
                    for part in spread(*_kept(uids, times), held):
                        writers[name].write(part)
    if out is not None:
        for name, writer in writers.items():
            provenance = _provenance(f"diff {name}", inputs)
            write_sidecar(Path(out) / f"{name}.npy", writer.count, writer.digest, provenance)
    return counts


@dataclass(frozen=True)
class _Input:
    file: SubsetFile
    digest: str
    pool: Any


def _read_inputs(paths: Sequence[Path | str]) -> list[_Input]:
    """Look at each file to its end, and at its sidecar."""
    return list(map_threads(_read_input, map(Path, paths)))


def _read_input(path: Path) -> _Input:
    file = SubsetFile.of(path)
    digest = file.verify()
    sidecar = read_sidecar(path) if path.suffix == ".npy" else None
    _check_sidecar(path, sidecar, digest)
    return _Input(file, digest, (sidecar or {}).get("pool"))


def _provenance(operation: str, inputs: list[_Input]) -> dict[str, Any]:
    pools = [item.pool for item in inputs]
    return {
        "pool": pools[0] if all(pool == pools[0] for pool in pools) else None,
        "pipeline": [{"use": f"subset {operation}"}],
        "inputs": [
            {"file": item.file.path.name, "digest": item.digest, "count": item.file.count}
            for item in inputs
        ],
    }
