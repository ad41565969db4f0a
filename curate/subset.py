"""Set algebra on subset files, and the sidecar that says how a subset came about.

A subset is a sorted array of 128-bit uids in which a uid that stands k times is to be seen k
times (its multiplicity). All operations here respect multiplicities:

* ``union``: as often as in the input that has it most often;
* ``intersect``: as often as in the input that has it least often;
* ``minus``: what B names goes away altogether, the rest of A stays as often as it was;
* ``diff``: only in A, only in B, and in both (the last as ``intersect``).

Without repetitions these are the operations on sets. Beside ``NAME.npy`` stands
``NAME.json``, its sidecar: count and digest of the uids, the pool they are from, the pipeline
and its funnel, the files they were computed from, and the version of datacomp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..durable import read_json, write_json
from ..errors import DataError, IntegrityError, UsageError
from ..pools.uids import UidArray, digest_of_uids, load_subset, save_subset, to_hex

FORMAT = "datacomp-subset"
VERSION = 1
PROVENANCE = ("pool", "pipeline", "funnel", "inputs")
MAX_SIDECAR_BYTES = 64 << 20
DEEP = 64
"""Uids that share a prefix, above which binary search is faster than looking at each."""
BLOCK = 1 << 18

Counts = NDArray[np.int64]


# -- algebra on arrays -----------------------------------------------------------------------


def union(a: UidArray, b: UidArray) -> UidArray:
    """Return what is in A or B; multiplicities are the larger of the two."""
    uids, in_a, in_b = tally(a, b)
    return np.repeat(uids, np.maximum(in_a, in_b))


def intersect(a: UidArray, b: UidArray) -> UidArray:
    """Return what is in A and B; multiplicities are the smaller of the two."""
    uids, in_a, in_b = tally(a, b)
    return np.repeat(uids, np.minimum(in_a, in_b))


def minus(a: UidArray, b: UidArray) -> UidArray:
    """Return A without every uid that B names, however often."""
    uids, in_a, in_b = tally(a, b)
    return np.repeat(uids, np.where(in_b > 0, 0, in_a))


@dataclass(frozen=True)
class Difference:
    """What only A has, what only B has, and what both have (with the smaller multiplicity)."""

    only_a: UidArray
    only_b: UidArray
    both: UidArray


def diff(a: UidArray, b: UidArray) -> Difference:
    """Compare two subsets uid by uid."""
    uids, in_a, in_b = tally(a, b)
    return Difference(
        only_a=np.repeat(uids, np.where(in_b > 0, 0, in_a)),
        only_b=np.repeat(uids, np.where(in_a > 0, 0, in_b)),
        both=np.repeat(uids, np.minimum(in_a, in_b)),
    )


def multiplicities(ordered: UidArray) -> tuple[UidArray, Counts]:
    """Return the distinct uids of a sorted array, shape (k,), and how often each stands there."""
    starts = _starts(ordered)
    if len(starts) == len(ordered):  # as nearly always; large subsets are not copied
        return ordered, np.broadcast_to(np.int64(1), len(ordered))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def tally(a: UidArray, b: UidArray) -> tuple[UidArray, Counts, Counts]:
    """Return the distinct uids of two sorted arrays, shape (k,), and their counts in each."""
    joined = np.concatenate([a, b])
    order = _merge_order(joined)
    ordered = joined[order]
    starts = _starts(ordered)
    if not len(starts):
        return ordered, np.zeros(0, np.int64), np.zeros(0, np.int64)
    total = np.diff(np.append(starts, len(ordered)))
    in_a = np.add.reduceat((order < len(a)).astype(np.int64), starts)
    return ordered[starts], in_a, total - in_a


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


def _merge_order(joined: UidArray) -> Counts:
    """Return the stable order of uids. Sorting by the high half alone is a merge of sorted runs;
    only where high halves tie and low halves disagree is the full sort needed.
    """
    order = np.argsort(joined["f0"], kind="stable")
    high, low = joined["f0"][order], joined["f1"][order]
    if np.any((high[1:] == high[:-1]) & (low[1:] < low[:-1])):
        order = np.lexsort((joined["f1"], joined["f0"]))
    return order


def _equal(a: UidArray, b: UidArray) -> NDArray[np.bool_]:
    return (a["f0"] == b["f0"]) & (a["f1"] == b["f1"])


def _starts(ordered: UidArray) -> Counts:
    """Return where each distinct uid of a sorted array begins."""
    first = np.ones(len(ordered), bool)
    first[1:] = ~_equal(ordered[1:], ordered[:-1])
    return np.flatnonzero(first)


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


def info(path: Path | str) -> SubsetInfo:
    """Describe a subset file; a sidecar that describes other uids is an IntegrityError."""
    path = Path(path)
    uids = load_subset(path)
    digest = digest_of_uids(uids)
    sidecar = read_sidecar(path)
    _check_sidecar(path, sidecar, digest)
    _, counts = multiplicities(uids)
    times, frequency = np.unique(counts, return_counts=True)
    return SubsetInfo(
        path=str(path),
        count=len(uids),
        unique=len(counts),
        multiplicities=dict(zip(times.tolist(), frequency.tolist(), strict=True)),
        first=to_hex(uids[:1])[0] if len(uids) else None,
        last=to_hex(uids[-1:])[0] if len(uids) else None,
        digest=digest,
        sidecar=sidecar,
    )


def sidecar_path(path: Path | str) -> Path:
    """Return where the sidecar of a subset file stands: ``NAME.json`` beside ``NAME.npy``."""
    path = Path(path)
    if path.suffix != ".npy":
        raise UsageError(f"{path}: the name of a subset file must end in .npy")
    return path.with_suffix(".json")


def write_subset(path: Path | str, uids: UidArray, provenance: dict[str, Any]) -> dict[str, Any]:
    """Write ``NAME.npy`` and its sidecar ``NAME.json``; return what the sidecar says.

    ``provenance`` may have ``pool`` ({digest, samples}), ``pipeline``, ``funnel`` and
    ``inputs``; what is left out is null there.
    """
    _check_provenance(provenance)
    sidecar_path(path)
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

_OPERATIONS = {"union": union, "intersect": intersect, "minus": minus}


def combine(operation: str, paths: Sequence[Path | str], out: Path | str) -> dict[str, Any]:
    """Apply union, intersect or minus to two or more files, from left to right; write ``out``.

    Returns the sidecar written. The pool is carried over when all inputs name the same.
    """
    inputs = _read_inputs(paths)
    result = inputs[0].uids
    for other in inputs[1:]:
        result = _OPERATIONS[operation](result, other.uids)
    return write_subset(out, result, _provenance(operation, inputs))


def compare(a: Path | str, b: Path | str, out: Path | str | None = None) -> dict[str, int]:
    """Count what is only in A, only in B and in both; write the three into folder ``out``."""
    inputs = _read_inputs([a, b])
    difference = diff(inputs[0].uids, inputs[1].uids)
    parts = {
        "only_a": difference.only_a,
        "only_b": difference.only_b,
        "both": difference.both,
    }
    if out is not None:
        for name, uids in parts.items():
            write_subset(Path(out) / f"{name}.npy", uids, _provenance(f"diff {name}", inputs))
    return {name: len(uids) for name, uids in parts.items()}


@dataclass(frozen=True)
class _Input:
    path: Path
    uids: UidArray
    digest: str
    pool: Any


def _read_inputs(paths: Sequence[Path | str]) -> list[_Input]:
    inputs = []
    for path in map(Path, paths):
        uids = load_subset(path)
        sidecar = read_sidecar(path) if path.suffix == ".npy" else None
        digest = digest_of_uids(uids)
        _check_sidecar(path, sidecar, digest)
        inputs.append(_Input(path, uids, digest, (sidecar or {}).get("pool")))
    return inputs


def _provenance(operation: str, inputs: list[_Input]) -> dict[str, Any]:
    pools = [item.pool for item in inputs]
    return {
        "pool": pools[0] if all(pool == pools[0] for pool in pools) else None,
        "pipeline": [{"use": f"subset {operation}"}],
        "inputs": [
            {"file": item.path.name, "digest": item.digest, "count": len(item.uids)}
            for item in inputs
        ],
    }
