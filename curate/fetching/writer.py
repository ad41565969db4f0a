"""Write a shard so that it has the same bytes whatever answered first.

img2dataset writes samples as they arrive. Here they are spooled, and put in the order of their
keys when all are there: a plain ustar tar, the parquet file of what became of every URL, and
last the stats, whose presence means that the shard is whole.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import atomic_path, storage_errors, write_json
from ...pools.tar import END, TarWriter
from .limits import Room
from .reasons import reason_of

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "{:08d}"
"""Shards are named as DataComp's: img2dataset with ``oom_shard_count=8``."""
_COUNT_SECONDS = 0.5
_PIECE = 1 << 20
_SPOOL = "spool.tar"


def stats_of(out: Path, number: int) -> Path:
    """Return where the stats of a shard stand; they are written last."""
    return out / f"{NAME.format(number)}_stats.json"


class ShardWriter:
    """Takes samples as img2dataset's writers do; ``publish`` makes a shard of them.

    The first failure to write is kept and raised at the end, because img2dataset takes it for
    the sample's and goes on; ``give_up`` is called, because going on is of no use.
    """

    def __init__(
        self, scratch: Path, count_file: Path, extension: str, room: Room,
        give_up: Callable[[], None],
    ) -> None:  # fmt: skip
        self._scratch, self._count_file, self._extension = scratch, count_file, extension
        self._room, self._give_up = room, give_up
        self._schema: pa.Schema | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._metadata: dict[str, dict[str, Any]] = {}
        self._spool = (scratch / _SPOOL).open("wb")
        self._tar = TarWriter(self._spool)
        self._counted = time.monotonic()
        self._trouble: OSError | None = None

    @property
    def failed(self) -> bool:
        """Whether something could not be written."""
        return self._trouble is not None

    def begin(
        self, number: int, folder: str, captions: bool, digits: int, schema: pa.Schema, kind: str
    ) -> ShardWriter:
        """Learn the columns of the parquet file: what img2dataset calls as a writer's class."""
        self._schema = schema
        return self

    def write(
        self, image: bytes | None, key: str, caption: str | None, metadata: dict[str, Any]
    ) -> None:
        """Take what became of one URL: the image, or None and a message in the metadata."""
        self._room.give_back(metadata["url"])
        self._metadata[key] = metadata
        if self._trouble is not None:
            return
        try:
            if image is not None:
                self._append(image, key, caption, metadata)
            self._tell()
        except OSError as error:
            self._trouble = error
            self._give_up()

    def _append(
        self, image: bytes, key: str, caption: str | None, metadata: dict[str, Any]
    ) -> None:
        start = self._tar.offset
        members = {
            self._extension: image,
            "json": json.dumps(metadata, indent=4).encode(),
            "txt": (caption or "").encode("utf-8", "replace"),
        }
        for name, data in members.items():
            self._tar.add(f"{key}.{name}", data)
        self._places[key] = (start, self._tar.offset)

    def _tell(self) -> None:
        """Let the process that waits know how far it is."""
        now = time.monotonic()
        if now - self._counted > _COUNT_SECONDS:
            self._counted = now
            self._count_file.write_text(str(len(self._metadata)))

    def close(self) -> None:
        """Do nothing: img2dataset closes its writers, but the shard is made by ``publish``."""

    def publish(self, out: Path, number: int, keys: list[tuple[str, dict[str, Any]]]) -> None:
        """Put the shard in its place; ``keys`` are those it must have, each with its input.

        A sample that img2dataset lost is one that failed. Raises StorageError.
        """
        with storage_errors(out / f"{NAME.format(number)}.tar"):
            self._spool.close()
            if self._trouble is not None:
                raise self._trouble
        for key, given in keys:
            if key not in self._metadata:
                lost = {"status": "failed_to_download", "error_message": "not_fetched: lost"}
                self._metadata[key] = {**given, "key": key, **lost}
        rows = [self._metadata[key] for key, _ in keys]
        self._write_parquet(out / f"{NAME.format(number)}.parquet", rows)
        with atomic_path(out / f"{NAME.format(number)}.tar") as partial:
            self._write_tar(partial, [key for key, _ in keys])
        write_json(stats_of(out, number), _stats(rows))

    def _write_parquet(self, path: Path, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema
        assert schema is not None
        columns = [[row.get(name) for row in rows] for name in schema.names]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)],
                         schema=schema)  # fmt: skip
        with atomic_path(path) as partial:
            pq.write_table(table, partial)

    def _write_tar(self, path: Path, keys: list[str]) -> None:
        with (self._scratch / _SPOOL).open("rb", buffering=0) as spool, path.open("wb") as file:
            for key in keys:
                start, end = self._places.get(key, (0, 0))
                while start < end:
                    piece = os.pread(spool.fileno(), min(end - start, _PIECE), start)
                    file.write(piece)
                    start += len(piece)
            file.write(END)


def _stats(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return img2dataset's stats, without times: the same shard has the same bytes."""
    states = Counter(row["status"] for row in rows)
    reasons = Counter(reason_of(row["error_message"]) for row in rows if row["error_message"])
    return {
        "count": len(rows),
        "successes": states["success"],
        "failed_to_download": states["failed_to_download"],
        "failed_to_resize": states["failed_to_resize"],
        "status_dict": dict(reasons) | {"success": states["success"]},
    }
