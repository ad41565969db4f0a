"""128-bit sample uids and DataComp's subset file format.

A uid is written as 32 lower-case hex digits. In numpy it is a record of dtype ``u8,u8``: the
high half ``f0`` and the low half ``f1``. A subset file is a ``.npy`` (version 1.0) of such
records in lexicographic order; a uid that stands there k times is to be seen k times.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import tokenize
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..durable import atomic_path
from ..errors import DataError, MissingError

UID_DTYPE = np.dtype("<u8,<u8")
UidArray = NDArray[np.void]
RECORD = np.complex128
"""Any dtype of 16 bytes moves a uid as it is; numpy is slow with records."""

MAPPED_FROM_BYTES = 1 << 26
"""Subset files larger than this are mapped, not read."""

_NO_HEADER = (TypeError, RecursionError, MemoryError, SyntaxError, tokenize.TokenError)
"""What numpy raises, besides ValueError, for a header that is no Python literal, or a deep one."""

_FIRST_BLOCK, _BLOCK = 1 << 8, 1 << 18
"""Uids that are compared at a time: what is found of each takes memory too. Few say that most
arrays are in no order."""

_AT_ONCE = 1 << 16
"""So many uids are sorted in the processor's cache."""

_HEX_UID = re.compile(r"[0-9a-f]{32}")


def uid_of_bytes(image: bytes, caption: bytes) -> str:
    """Return the uid of a sample that comes with its bytes: SHA-256(image, 0x00, caption)[:16]."""
    return hashlib.sha256(image + b"\0" + caption).hexdigest()[:32]


def uid_of_url(url: str, caption: str) -> str:
    """Return the uid of a sample known by its URL: SHA-256(url, 0x00, caption)[:16]."""
    return hashlib.sha256(url.encode() + b"\0" + caption.encode()).hexdigest()[:32]


def is_uid(text: object) -> bool:
    """Tell whether ``text`` is a uid: 32 lower-case hex digits."""
    return isinstance(text, str) and _HEX_UID.fullmatch(text) is not None


def from_hex(uids: list[str]) -> UidArray:
    """Turn hex uids into records, shape (n,), in the order given."""
    out = np.empty(len(uids), UID_DTYPE)
    raw = np.frombuffer(bytes.fromhex("".join(uids)), ">u8").reshape(-1, 2)
    out["f0"], out["f1"] = raw[:, 0], raw[:, 1]
    return out


def to_hex(uids: UidArray) -> list[str]:
    """Turn records into hex uids, in the order given."""
    raw = np.empty((len(uids), 2), ">u8")
    raw[:, 0], raw[:, 1] = uids["f0"], uids["f1"]
    text = raw.tobytes().hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def from_halves(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> UidArray:
    """Join two arrays of uint64 halves, shape (n,), into records."""
    out = np.empty(len(high), UID_DTYPE)
    out["f0"], out["f1"] = high, low
    return out


def joined_uids(parts: Sequence[UidArray]) -> UidArray:
    """Return arrays of uids as one, shape (n,)."""
    records = [np.ascontiguousarray(part).view(RECORD) for part in parts]
    return np.concatenate(records).view(UID_DTYPE)


def sort_uids(uids: UidArray) -> UidArray:
    """Return the records in lexicographic order, repetitions kept."""
    if is_sorted(uids):
        return uids
    if len(uids) <= _AT_ONCE:
        return sort_alike(uids, 0)
    found, ends = part_uids(uids)
    for start, end in itertools.pairwise(ends):
        part = found[start:end]
        part.view(RECORD)[:] = sort_alike(part, 1).view(RECORD)
    return found


def part_uids(uids: UidArray) -> tuple[UidArray, list[int]]:
    """Return the records grouped by their first byte, and the bounds of the groups, 257 of them."""
    uids = np.ascontiguousarray(uids)
    first = uids.view(np.uint8).reshape(-1, 16)[:, 7]  # little-endian: the first is the last
    ends = np.cumsum(np.bincount(first, minlength=256))
    parted = uids.view(RECORD).take(np.argsort(first, kind="stable")).view(UID_DTYPE)
    return parted, [0, *ends.tolist()]


def sort_alike(uids: UidArray, alike: int) -> UidArray:
    """Sort records that agree in their first ``alike`` bytes, 0 to 4 of them.

    Uids are hashes: four bytes tell nearly all of them apart. They are sorted by these as digits
    are, two at a time, the last first, for which numpy has no comparisons to make; few records are
    left to compare.
    """
    if is_sorted(uids):
        return uids
    uids = np.ascontiguousarray(uids)
    first, second = (
        np.ndarray(len(uids), "<u2", uids.data, byte - alike, (16,)) for byte in (6, 4)
    )
    order = second.argsort(kind="stable")
    order = order.take(first.take(order).argsort(kind="stable"))
    found = uids.view(RECORD).take(order).view(UID_DTYPE)
    told = found["f0"] >> np.uint64(32 - 8 * alike)
    same = np.flatnonzero(told[1:] == told[:-1])
    if len(same) > len(uids) >> 4:  # no hashes, or many repetitions
        return uids[np.lexsort((uids["f1"], uids["f0"]))]
    for start, end in _runs(same):
        part = found[start:end]
        part[:] = part[np.lexsort((part["f1"], part["f0"]))]
    return found


def _runs(places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of records, told by the places equal to the next."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    for run in np.split(places, breaks) if len(places) else ():
        yield int(run[0]), int(run[-1]) + 2


def is_sorted(uids: UidArray) -> bool:
    """Tell whether the records are in lexicographic order (equal neighbours allowed)."""
    first, size = 0, _FIRST_BLOCK
    while first < len(uids):
        high, low = (uids[half][first : first + size + 1] for half in ("f0", "f1"))
        first, size = first + size, _BLOCK
        above = high[1:] > high[:-1]
        if above.all():  # as nearly always: they are hashes
            continue
        if not np.all(above | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))):
            return False
    return True


def members_of(uids: UidArray, ordered: UidArray) -> NDArray[np.bool_]:
    """Tell which of some uids (n,) stand among sorted ones (m,), which may be mapped from a file.

    They are looked up by halving: of a large file few pages are read, and nothing is copied.
    """
    low, high = np.zeros(len(uids), np.int64), np.full(len(uids), len(ordered), np.int64)
    while (left := np.flatnonzero(low < high)).size:
        middle = (low[left] + high[left]) // 2
        at, wanted = ordered[middle], uids[left]
        above = (at["f0"] < wanted["f0"]) | ((at["f0"] == wanted["f0"]) & (at["f1"] < wanted["f1"]))
        low[left[above]] = middle[above] + 1
        high[left[~above]] = middle[~above]
    found = low < len(ordered)
    found[found] = ordered[low[found]] == uids[found]
    return found


def multiplicities(ordered: UidArray) -> tuple[UidArray, NDArray[np.int64]]:
    """Return the distinct uids of a sorted array, shape (k,), and how often each stands there."""
    starts = starts_of(ordered)
    if len(starts) == len(ordered):  # as nearly always; large subsets are not copied
        return ordered, np.broadcast_to(np.int64(1), len(ordered))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def starts_of(ordered: UidArray) -> NDArray[np.int64]:
    """Return where each distinct uid of a sorted array begins, shape (k,)."""
    first = np.ones(len(ordered), bool)
    high, low = ordered["f0"], ordered["f1"]
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.flatnonzero(first)


def digest_of_uids(ordered: UidArray) -> str:
    """Return the SHA-256 over sorted records: the name of a set of samples.

    It equals the SHA-256 of the payload of the set's ``.npy``.
    """
    return hashlib.sha256(np.ascontiguousarray(ordered).view(np.uint8).data).hexdigest()


def save_subset(path: Path | str, uids: UidArray) -> str:
    """Write records as a DataComp subset file, sorted, atomically; return their digest.

    The digest is made while the disk is at work.
    """
    ordered = np.ascontiguousarray(sort_uids(uids))
    with (
        ThreadPoolExecutor(1) as thread,
        atomic_path(path) as partial,
        partial.open("wb") as file,
    ):
        digest = thread.submit(digest_of_uids, ordered)
        header = np.lib.format.header_data_from_array_1_0(ordered)
        np.lib.format.write_array_header_1_0(file, header)
        # numpy's own writer reports a full disk without saying so.
        file.write(ordered.view(np.uint8).data)
    return digest.result()


def load_subset(path: Path | str) -> UidArray:
    """Read a DataComp subset file; refuse anything that is not sorted ``u8,u8`` records.

    An unsorted file makes the original tools select the wrong images without a word, so it is
    an error here. Raises MissingError or DataError.
    """
    path = Path(path)
    count, start = subset_header(path)
    array: UidArray
    if start + count * UID_DTYPE.itemsize > MAPPED_FROM_BYTES:
        array = np.memmap(path, UID_DTYPE, "r", start, (count,))
    else:
        array = np.fromfile(path, UID_DTYPE, count, offset=start)
    if not is_sorted(array):
        raise unsorted_error(path)
    return array


def subset_header(path: Path) -> tuple[int, int]:
    """Return how many uids a subset file has and where they begin; its order is not looked at.

    Raises MissingError or DataError.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such subset file; make one with 'datacomp filter run'")
    try:
        with path.open("rb") as file:
            shape, _, dtype, offset = npy_header(file)
            size = os.fstat(file.fileno()).st_size
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy subset: {_first_line(error)}") from error
    if dtype != UID_DTYPE or len(shape) != 1:
        raise DataError(
            f"{path}: dtype {dtype.str if dtype.names is None else dtype}, "
            f"shape {shape}, but a subset has dtype 'u8,u8' (little-endian), shape (n,)"
        )
    if size != offset + shape[0] * UID_DTYPE.itemsize:
        raise DataError(
            f"{path}: {size:,} bytes, but its header promises {shape[0]:,} uids "
            f"({offset + shape[0] * UID_DTYPE.itemsize:,} bytes); make or copy it again"
        )
    return shape[0], offset


def unsorted_error(path: Path) -> DataError:
    """Return the error for a subset file whose uids are in no order."""
    return DataError(
        f"{path}: the uids are not sorted; a subset must be in lexicographic order "
        "(sort it with numpy's array.sort() and save it again)"
    )


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, whether columns come first, dtype, and where the data starts.

    Nothing is allocated or unpickled. Raises ValueError for what is no ``.npy``.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f".npy version {version[0]}.{version[1]} is not known")
    try:
        shape, fortran, dtype = readers[version](file)
    except _NO_HEADER as error:
        raise ValueError(f"its header cannot be read: {_first_line(error)}") from error
    if any(type(side) is not int for side in shape):
        raise ValueError(f"its header has the shape {shape}")
    return shape, fortran, dtype, file.tell()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
