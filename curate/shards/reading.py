"""Read the headers of one tar: the rows of the index that it gives. Runs in workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DatacompError, DataError, MissingError, UnsafeInputError
from ...pools import tar
from ...pools.identity import uid_of_sample
from ...pools.ranges import REMOTE_GAP, Ranges, is_remote, open_ranges
from ...pools.tar_uniform import Batch, IrregularTarError, uniform_batches
from .columns import integer_column, list_column, repeated_column, split_column, text_column
from .storage import EXAMPLES, ShardRecord, schema

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 16 * tar.BLOCK
"""What stands between two images, headers and all, fits in: one read for each sample."""
REMOTE_WINDOW, MOST = 64 << 10, 2 << 20
"""On another machine a request costs as much as many images: windows that hold many samples."""


@dataclass
class Found:
    """The rows of one tar."""

    record: ShardRecord
    table: pa.Table
    unsafe: bool = False
    missing: bool = False
    whole: bool = True
    bytes_read: int = 0
    requests: int = 0

    def error(self) -> DatacompError:
        """Return the error of a broken tar, or of one that is not there."""
        kind = UnsafeInputError if self.unsafe else MissingError if self.missing else DataError
        return kind(self.record.broken)


def read_tar(place: str) -> Found:
    """Read the headers and the small members of a tar; what is wrong with it its record tells."""
    name = place.rpartition("/")[2]
    rows = _Rows(name)
    aside: list[tuple[str, str]] = []
    torn: set[str] = set()
    broken, unsafe = None, False
    bytes_read = requests = 0
    try:
        file = open_ranges(place)
    except MissingError as error:
        return Found(ShardRecord(name, 0, "", 0, broken=str(error)), rows.table(), missing=True)
    try:
        if is_remote(place):
            window = tar.Window(file.read_at, REMOTE_WINDOW, file.size, MOST, REMOTE_GAP)
        else:
            found = _read_uniform(file, name)
            if found.whole:
                return found
            bytes_read, requests = found.bytes_read, found.requests
            window = tar.Window(file.read_at, WINDOW, file.size)
        try:
            for sample in tar.samples_in(window, place, torn=torn):
                try:
                    rows.add(uid_of_sample(window, sample), sample)
                except ValueError as error:
                    aside.append((sample.key, str(error)))
        except DataError as error:
            broken, unsafe = str(error), isinstance(error, UnsafeInputError)
            if unsafe:
                rows, aside, torn = _Rows(name), [], set()
        if file.is_changed():
            broken = f"{place}: changed while it was read; wait until it is finished"
            rows, aside, torn = _Rows(name), [], set()
    finally:
        file.close()
    table = rows.table()
    if torn:
        broken = broken or str(tar.interleaved(place, min(torn)))
        table = table.filter(np.array([key not in torn for key in rows.key], bool))
        aside = [(key, reason) for key, reason in aside if key not in torn]
        aside += [(key, tar.MEMBERS_APART) for key in sorted(torn)]
    counts = Counter(reason for _, reason in aside)
    record = ShardRecord(
        name, file.size, file.version, len(table), set_aside=dict(sorted(counts.items())),
        examples=tuple(aside[:EXAMPLES]), broken=broken,
    )  # fmt: skip
    return Found(
        record, table, unsafe, bytes_read=bytes_read + window.bytes_read,
        requests=requests + window.requests,
    )  # fmt: skip


def _read_uniform(file: Ranges, name: str) -> Found:
    """Read a tar of this machine whose samples are all alike; of another one not ``whole``."""
    import pyarrow as pa

    read = requests = 0

    def read_at(offset: int, size: int) -> bytes:
        nonlocal read, requests
        data = file.read_at(offset, size)
        read, requests = read + len(data), requests + 1
        return data

    try:
        tables = [_batch_rows(name, batch) for batch in uniform_batches(read_at, file.size, WINDOW)]
        whole = not file.is_changed()
    except IrregularTarError:
        tables, whole = [], False
    rows = pa.concat_tables(tables) if whole else schema().empty_table()
    record = ShardRecord(name, file.size, file.version, len(rows))
    return Found(record, rows, whole=whole, bytes_read=read, requests=requests)


def _batch_rows(shard: str, batch: Batch) -> pa.Table:
    """Return the rows of samples that are all alike."""
    import pyarrow as pa

    kind = schema().field("members").type
    count, each = batch.data.shape
    parts = [
        repeated_column(batch.extensions, count),
        integer_column((batch.data - batch.starts[:, None]).reshape(-1)),
        integer_column(batch.sizes.reshape(-1)),
    ]
    members = pa.StructArray.from_arrays(parts, fields=list(kind.value_type))
    columns = [
        split_column(batch.uids, np.full(count, 32)),
        repeated_column((shard,), count),
        integer_column(batch.starts),
        integer_column(batch.ends - batch.starts),
        split_column(batch.keys, batch.key_lengths),
        list_column(np.full(count, each), members, kind),
    ]
    return pa.Table.from_arrays(columns, schema=schema())


class _Rows:
    """The columns of the index while they grow; members of all samples stand in flat lists."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self.uid: list[str] = []
        self._offset: list[int] = []
        self._length: list[int] = []
        self.key: list[str] = []
        self._members: list[int] = []
        self._extension: list[str] = []
        self._data: list[int] = []
        self._size: list[int] = []

    def add(self, uid: str, sample: tar.TarSample) -> None:
        """Append a sample."""
        start = sample.start
        self.uid.append(uid)
        self._offset.append(start)
        self._length.append(sample.end - start)
        self.key.append(sample.key)
        for extension, member in sample.members.items():
            self._extension.append(extension)
            self._data.append(member.data - start)
            self._size.append(member.size)
        self._members.append(len(sample.members))

    def table(self) -> pa.Table:
        """Return the rows."""
        import pyarrow as pa

        kind = schema().field("members").type
        parts = [
            text_column(self._extension), integer_column(self._data), integer_column(self._size)
        ]  # fmt: skip
        members = pa.StructArray.from_arrays(parts, fields=list(kind.value_type))
        columns = [
            text_column(self.uid),
            text_column([self._shard] * len(self.uid)),
            integer_column(self._offset),
            integer_column(self._length),
            text_column(self.key),
            list_column(self._members, members, kind),
        ]
        return pa.Table.from_arrays(columns, schema=schema())
