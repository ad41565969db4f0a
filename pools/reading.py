"""Read the images of a pool's samples from wherever they lie, in file order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ..errors import DataError
from .pool import HALVES, Pool, quote
from .uids import UidArray, from_halves


@dataclass
class SampleBatch:
    """Some samples: uids (n,), the columns asked for, and image bytes (None where unreadable)."""

    uids: UidArray
    columns: pa.Table
    images: list[bytes | None]

    def __len__(self) -> int:
        return len(self.uids)


def iterate(
    pool: Pool,
    relation: str = "samples",
    columns: tuple[str, ...] = (),
    images: bool = False,
    batch_size: int = 256,
) -> Iterator[SampleBatch]:
    """Yield the samples of ``relation`` (SQL with a ``uid`` column) in batches, in file order.

    The list of samples is fixed before the first batch, so the caller may write to the pool
    in between; only uids and locations are held in memory.
    """
    wanted = ", ".join(f"s.{quote(name)}" for name in columns)
    query = (
        f"SELECT {HALVES}, * EXCLUDE (uid) FROM (SELECT s.uid, s.source AS _source, "
        f's.shard AS _shard, s."offset" AS _offset, s.length AS _length{"," if wanted else ""} '
        f"{wanted} FROM samples s SEMI JOIN ({_relation(relation)}) r USING (uid)) "
        "ORDER BY _source, _shard, _offset, high, low"
    )
    table = pool.table(query)
    roots = pool.source_paths()
    with _Files(roots) as files:
        for batch in table.to_batches(max_chunksize=batch_size):
            part = pa.Table.from_batches([batch])
            uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
            data: list[bytes | None] = []
            if images:
                data = [
                    files.read(*location)
                    for location in zip(
                        part["_source"].to_pylist(), part["_shard"].to_pylist(),
                        part["_offset"].to_pylist(), part["_length"].to_pylist(),
                        strict=True,
                    )
                ]  # fmt: skip
            yield SampleBatch(uids, part.select(list(columns)), data)


def read_images(pool: Pool, uids_relation: str) -> dict[str, bytes | None]:
    """Return the image bytes of a few samples by hex uid."""
    from .uids import to_hex

    found: dict[str, bytes | None] = {}
    for batch in iterate(pool, uids_relation, images=True):
        found.update(zip(to_hex(batch.uids), batch.images, strict=True))
    return found


def _relation(text: str) -> str:
    return f"SELECT uid FROM {text}" if text.isidentifier() else text


class _Files:
    """Keeps the last file open: samples come in file order."""

    def __init__(self, roots: dict[int, Path]) -> None:
        self._roots = roots
        self._key: tuple[int, str] | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, source: int, shard: str | None, offset: int, length: int) -> bytes | None:
        if shard is None:
            return None
        try:
            if self._key != (source, shard):
                if self._file is not None:
                    self._file.close()
                self._key, self._file = None, locate(self._roots[source], shard).open("rb")
                self._key = (source, shard)
            assert self._file is not None
            self._file.seek(offset)
            data = self._file.read(length)
        except (OSError, KeyError, DataError):
            return None
        return data if len(data) == length else None


def locate(root: Path, shard: str) -> Path:
    """Return the file of a shard below its source's root; a name that leaves it is refused."""
    if root.is_file():
        return root
    path = root / shard
    if Path(shard).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{shard}: lies outside {root}")
    return path


def describe(value: Any) -> str:
    """Return a value as short text for messages."""
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
