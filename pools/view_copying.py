"""Copy the samples of a view into new tars, hundreds at a time.

Samples of ordinary tars are built alike: the same members in the same order, plain headers, at
most a PAX header with a time before each. Where one sample says how, the headers of all others
lie in one matrix. They are checked at once, for all that ``tar.parse_sample`` checks, and new
headers are written over them; a new tar is then nothing but some of the blocks read, in another
order. Whatever is different in any way is taken apart by ``views.sample_of``, which knows all
kinds of samples and says what is wrong with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import tar
from .ranges import OpenFiles, Stamp, read_batches
from .tar_matrix import (
    DIGITS,
    FILE,
    NAME,
    Bytes,
    Numbers,
    Passed,
    octal,
    plain_headers,
    stem_lengths,
    times,
    ustar_headers,
)
from .views import FIELDS, RECORD, ViewSample, no_such_tar, sample_of

BLOCK = tar.BLOCK
ROOM = 8 << 20
"""Bytes read at a time: some hundred samples with an image each."""
SHAPES = 8
"""So many kinds of samples are known at a time; tars seldom have more than two."""
_TIMED = 3  # blocks: a PAX header, the time it tells, and the member's own header
_UID = 32
_LONGEST = 100 - _UID - len("-4294967295.")


class Rows(NamedTuple):
    """Samples ready to be written: the rows of ``blocks``, (m, 512) uint8, in this order."""

    samples: int
    blocks: Bytes
    order: NDArray[np.intp]


def copies(files: list[Stamp], raw: bytes) -> Iterator[Rows | ViewSample]:
    """Yield the samples of some records of ``samples.npy`` as they stand in a new tar, in order.

    Those that are out of the ordinary come one by one, for ``views.write_sample``. What was
    yielded is overwritten later. Raises what ``views.read_samples`` raises.
    """
    records = np.frombuffer(raw, np.dtype(list(FIELDS)))
    if (records["file"] >= len(files)).any():
        raise no_such_tar()
    first, count = records["block"].astype(np.int64), records["blocks"].astype(np.int64)
    places = zip(
        records["file"].tolist(), (first * BLOCK).tolist(), (count * BLOCK).tolist(), strict=True
    )
    shapes: list[_Shape] = []
    start = 0
    with OpenFiles() as opened:
        for samples, data in read_batches(files, places, opened, bytearray(ROOM)):
            part = slice(start, start + samples)
            yield from _batch(files, records[part], data, shapes)
            start += samples


def _batch(
    files: list[Stamp], records: NDArray[np.void], data: bytearray, shapes: list[_Shape]
) -> Iterator[Rows | ViewSample]:
    """Yield the samples of some records, whose ranges follow each other in ``data``."""
    batch = _Batch(records, data)
    for shape in shapes:
        batch.take(shape)
    for number in batch.left()[:SHAPES].tolist():
        if len(shapes) < SHAPES and not batch.taken[number]:
            shape = _shape_of(batch.sample(number))
            if shape is not None and shape not in shapes:
                shapes.append(shape)
                batch.take(shape)
    begin = 0
    for number in [*batch.left().tolist(), len(records)]:
        if number > begin:
            yield batch.rows(begin, number)
        if number < len(records):
            yield sample_of(files, RECORD.unpack(records[number].tobytes()), batch.sample(number))
        begin = number + 1


@dataclass(frozen=True)
class _Shape:
    """How samples are built: of each member the blocks from its start to its data, and its end.

    ``spelled`` are the extensions as they stand in the tar, ``extensions`` in lower case.
    """

    leads: tuple[int, ...]
    spelled: tuple[bytes, ...]
    extensions: tuple[str, ...]


def _shape_of(data: memoryview) -> _Shape | None:
    """Return the shape of a sample; None where it does not say enough about others."""
    sample = tar.plain_sample(data)
    if sample is None or "json" not in sample.members:
        return None
    members = sample.members.values()
    leads = tuple((one.data - one.start) // BLOCK for one in members)
    spelled = tuple(one.name.partition(".")[2].encode() for one in members)
    if not set(leads) <= {1, _TIMED} or max(map(len, spelled)) > _LONGEST:
        return None
    return _Shape(leads, spelled, tuple(sample.members))


class _Batch:
    """The ranges of n records; ``taken`` are those whose samples were found to be ordinary."""

    def __init__(self, records: NDArray[np.void], data: bytearray) -> None:
        self._data, self._records = data, records
        self._blocks = np.frombuffer(data, np.uint8).reshape(-1, BLOCK)
        ends = np.cumsum(records["blocks"], dtype=np.int64)
        self._starts, self._ends = ends - records["blocks"], ends
        uids = np.stack((records["high"], records["low"]), 1).astype(">u8").tobytes()
        self._uids = np.frombuffer(uids.hex().encode(), np.uint8).reshape(-1, _UID)
        self.taken: Passed = np.zeros(len(records), bool)
        self._pieces: list[tuple[Numbers, Numbers, Numbers]] = []
        """Number of the sample, first block, and how many, of each member in its new order."""

    def left(self) -> NDArray[np.intp]:
        """Return the numbers of the samples that were not taken."""
        return np.flatnonzero(~self.taken)

    def sample(self, number: int) -> memoryview:
        """Return the range of a sample."""
        view = memoryview(self._data)
        return view[int(self._starts[number]) * BLOCK : int(self._ends[number]) * BLOCK]

    def take(self, shape: _Shape) -> None:
        """Take the samples that are built like this, and write their new headers."""
        numbers = self.left()
        if not len(numbers):
            return
        heads, sizes, passed = self._walk(shape, numbers)
        passed &= self._ordinary(shape, heads)
        numbers, heads, sizes = numbers[passed], heads[passed], sizes[passed]
        known = self._hold_uids(numbers, (heads + 1) * BLOCK, sizes, shape)
        numbers, heads, sizes = numbers[known], heads[known], sizes[known]
        if not len(numbers):
            return
        self._rewrite(shape, numbers, heads, sizes)
        order = sorted(range(len(shape.extensions)), key=shape.extensions.__getitem__)
        counts = 1 - -sizes // BLOCK
        self._pieces.append(
            (
                np.repeat(numbers, len(order)),
                heads[:, order].reshape(-1),
                counts[:, order].reshape(-1),
            )
        )
        self.taken[numbers] = True

    def rows(self, first: int, last: int) -> Rows:
        """Return the samples [first, last), all of them taken."""
        owner, start, count = (
            self._pieces[0]
            if len(self._pieces) == 1
            else (np.concatenate(one) for one in zip(*self._pieces, strict=True))
        )
        if len(self._pieces) > 1:
            order = np.argsort(owner, kind="stable")
            owner, start, count = owner[order], start[order], count[order]
            self._pieces = [(owner, start, count)]
        low, high = np.searchsorted(owner, (first, last))
        start, count = start[low:high], count[low:high]
        ends = np.cumsum(count)
        order = np.repeat(start - ends + count, count) + np.arange(ends[-1])
        return Rows(last - first, self._blocks, order)

    def _walk(
        self, shape: _Shape, numbers: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], Numbers, Passed]:
        """Go from header to header: their blocks and the sizes, (n, members), and who arrives."""
        at, ends = self._starts[numbers], self._ends[numbers]
        passed = np.ones(len(numbers), bool)
        heads = np.empty((len(numbers), len(shape.leads)), np.intp)
        sizes = np.empty(heads.shape, np.int64)
        for position, lead in enumerate(shape.leads):
            head = at + lead - 1
            passed &= head < ends
            head = np.where(passed, head, lead - 1)  # any place that can be looked at
            size, is_number = octal(self._blocks[head, DIGITS])
            passed &= is_number
            at = head + 1 - -size // BLOCK
            heads[:, position], sizes[:, position] = head, size
        return heads, sizes, passed & (at == ends)

    def _ordinary(self, shape: _Shape, heads: NDArray[np.intp]) -> Passed:
        """Tell whose headers are right, with names that differ in their extensions alone."""
        count, members = heads.shape
        rows = self._blocks[heads.reshape(-1)]
        passed = np.asarray(plain_headers(rows, FILE).reshape(heads.shape).all(1))
        width = int(np.flatnonzero(rows[:, NAME].any(0)).max(initial=0)) + 1
        names = rows[:, :width].reshape(count, members, width)
        stem, length = names[:, 0], np.zeros(count, np.int64)
        for position, extension in enumerate(shape.spelled):
            found, alike = stem_lengths(names[:, position], extension)
            passed &= alike
            if position == 0:
                length = found
            else:
                passed &= found == length
                inside = np.arange(stem.shape[1]) < length[:, None]
                passed &= ((names[:, position] == stem) | ~inside).all(1)
        timed = [position for position, lead in enumerate(shape.leads) if lead == _TIMED]
        if timed:
            pax = heads[:, timed].reshape(-1) - 2
            is_time = times(self._blocks[pax], self._blocks[pax + 1])
            passed &= is_time.reshape(count, len(timed)).all(1)
        return passed

    def _hold_uids(
        self, numbers: NDArray[np.intp], data: Numbers, sizes: Numbers, shape: _Shape
    ) -> Passed:
        """Tell in whose json the uid stands that the index says."""
        position = shape.extensions.index("json")
        start = data[:, position]
        uids = self._uids[numbers].reshape(-1).view(f"S{_UID}").tolist()
        ends = (start + sizes[:, position]).tolist()
        found = map(self._data.find, uids, start.tolist(), ends)
        return np.fromiter(found, np.int64, len(uids)) >= 0

    def _rewrite(
        self, shape: _Shape, numbers: NDArray[np.intp], heads: NDArray[np.intp], sizes: Numbers
    ) -> None:
        """Write new headers over the old ones, and zeros behind the data."""
        names = np.zeros((*heads.shape, 100), np.uint8)
        names[:, :, :_UID] = self._uids[numbers][:, None]
        copies = self._records["copy"][numbers]
        for copy in np.unique(copies).tolist():
            same = copies == copy
            for position, extension in enumerate(shape.extensions):
                ending = np.frombuffer(f"-{copy}.{extension}".encode(), np.uint8)
                names[same, position, _UID : _UID + len(ending)] = ending
        rows = heads.reshape(-1)
        self._blocks[rows] = ustar_headers(names.reshape(-1, 100), self._blocks[rows, DIGITS])
        size = sizes.reshape(-1)
        used = size % BLOCK
        rows, used = (rows + -(-size // BLOCK))[used > 0], used[used > 0].astype(np.int16)
        last = self._blocks[rows]
        last *= np.arange(BLOCK, dtype=np.int16) < used[:, None]
        self._blocks[rows] = last
