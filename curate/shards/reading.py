"""Read the headers of one tar: the rows of the index that it gives. Runs in workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DataError, UnsafeInputError
from ...pools import tar
from ...pools.identity import uid_of_sample
from ...pools.ranges import open_ranges
from .storage import ShardRecord, schema

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 16 * tar.BLOCK
"""What stands between two images, headers and all, fits in: one read for each sample."""


@dataclass
class Found:
    """The rows of one tar."""

    record: ShardRecord
    table: pa.Table
    unsafe: bool = False
    reused: bool = False
    bytes_read: int = 0

    def error(self) -> DataError:
        """Return the error of a broken tar."""
        return (UnsafeInputError if self.unsafe else DataError)(self.record.broken)


def read_tar(place: str) -> Found:
    """Read the headers and the small members of a tar; a broken one is told in its record."""
    name = place.rpartition("/")[2]
    rows = _Rows(name)
    aside: list[tuple[str, str]] = []
    broken, unsafe = None, False
    file = open_ranges(place)
    try:
        window = tar.Window(file.read_at, WINDOW, file.size)
        try:
            for sample in tar.samples_in(window, place):
                try:
                    rows.add(uid_of_sample(window, sample), sample)
                except ValueError as error:
                    aside.append((sample.key, str(error)))
        except DataError as error:
            broken, unsafe = str(error), isinstance(error, UnsafeInputError)
            if unsafe:
                rows, aside = _Rows(name), []
        if file.is_changed():
            raise DataError(f"{place}: changed while it was read; wait until it is finished")
    finally:
        file.close()
    record = ShardRecord(
        name, file.size, file.version, len(rows.uid), set_aside=tuple(aside), broken=broken
    )
    return Found(record, rows.table(), unsafe, bytes_read=window.bytes_read)


class _Rows:
    """The columns of the index while they grow; members of all samples stand in flat lists."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self.uid: list[str] = []
        self._offset: list[int] = []
        self._length: list[int] = []
        self._key: list[str] = []
        self._first = [0]
        self._extension: list[str] = []
        self._data: list[int] = []
        self._size: list[int] = []

    def add(self, uid: str, sample: tar.TarSample) -> None:
        """Append a sample."""
        start = sample.start
        self.uid.append(uid)
        self._offset.append(start)
        self._length.append(sample.end - start)
        self._key.append(sample.key)
        for extension, member in sample.members.items():
            self._extension.append(extension)
            self._data.append(member.data - start)
            self._size.append(member.size)
        self._first.append(len(self._size))

    def table(self) -> pa.Table:
        """Return the rows."""
        import pyarrow as pa

        parts = [
            pa.array(self._extension, pa.string()),
            pa.array(self._data, pa.int64()),
            pa.array(self._size, pa.int64()),
        ]
        item = schema().field("members").type.value_type
        members = pa.ListArray.from_arrays(
            pa.array(self._first, pa.int32()),
            pa.StructArray.from_arrays(parts, fields=list(item)),
            type=schema().field("members").type,
        )
        columns = [
            pa.array(self.uid, pa.string()),
            pa.array([self._shard] * len(self.uid), pa.string()),
            pa.array(self._offset, pa.int64()),
            pa.array(self._length, pa.int64()),
            pa.array(self._key, pa.string()),
            members,
        ]
        return pa.Table.from_arrays(columns, schema=schema())
