"""Metadata in an object store: each partition is copied by the worker that judges it.

What the driver needs of a pool (columns, types, numbers of rows, and its name) stands in the
footers of its parquet files. So it gets a folder of files that have nothing but their footers, each
at its place in a file of the true size whose rest is a hole. No row can be read from them, and
nobody tries: a worker copies the file it judges from the store, and its features if they are asked
for, and removes them again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..errors import DataError, MissingError, UnsafeInputError
from .partitions import Partition
from .ranges import Stamp, open_ranges
from .stores import download, stamps_below

_REQUESTS = 16
_MAGIC = b"PAR1"
_MAX_FOOTER = 256 << 20


@dataclass(frozen=True)
class RemoteMetadata:
    """A folder of metadata in a store, and the folder of footers that stands for it here."""

    place: str
    footers: Path
    stamps: Mapping[str, Stamp]
    """The files of metadata and features there, by their names relative to the place."""

    def of(self, partition: Partition) -> RemoteMetadata:
        """Return what is to be known of one partition: it travels with it."""
        name = partition.file.relative_to(self.footers)
        own = (name.as_posix(), name.with_suffix(".npz").as_posix())
        return replace(self, stamps={n: self.stamps[n] for n in own if n in self.stamps})

    @contextlib.contextmanager
    def fetched(self, partition: Partition, features: bool) -> Iterator[Partition]:
        """Yield a partition whose file is here meanwhile, and its features if asked for.

        Raises DataError for a file that is not the one whose footer was read.
        """
        name = partition.file.relative_to(self.footers)
        with self.of(partition).everything(features) as root:
            yield replace(partition, root=root, file=root / name)

    @contextlib.contextmanager
    def everything(self, features: bool) -> Iterator[Path]:
        """Yield a folder with all files that are known here, features only if asked for."""
        with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
            for name, stamp in self.stamps.items():
                if features or name.endswith(".parquet"):
                    download(stamp.place, Path(home) / name, stamp)
            yield Path(home)


@contextlib.contextmanager
def remote_metadata(place: str) -> Iterator[RemoteMetadata]:
    """Read the footers of the metadata in a store; the folder of them lasts as the block does."""
    place = place.rstrip("/")
    listed = stamps_below(place)
    if not listed:
        raise MissingError(f"{place}: no such folder")
    stamps = {name: listed[name] for name in _metadata_names(sorted(listed))}
    with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
        files = {name for name in stamps if name.endswith(".parquet")}

        def look(name: str) -> Stamp:
            one = stamps[name]
            if name in files:
                return _copy_footer(one.place, Path(home) / name)
            # The listing of a web server does not tell versions.
            return one if one.version else _stamp_of(one.place)

        with ThreadPoolExecutor(_REQUESTS) as threads:
            stamps = dict(zip(stamps, threads.map(look, stamps), strict=True))
        yield RemoteMetadata(place, Path(home), stamps)


def _metadata_names(names: Sequence[str]) -> list[str]:
    """Return what a folder of metadata would be taken to have (see ``sources/commonpool``)."""
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
            raise UnsafeInputError(f"{name[:80]!r} is not a plain name; refused")
    for base in ("", "metadata/"):
        found = [
            name
            for name in names
            if name.startswith(base)
            and _is_direct(name[len(base) :])
            and name.endswith((".parquet", ".npz"))
        ]
        if any(name.endswith(".parquet") for name in found):
            return found
    return []


def _is_direct(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return not file.startswith(".") and (not folder or (
        "/" not in folder and folder.startswith("part_")
    ))  # fmt: skip


def _stamp_of(place: str) -> Stamp:
    """Return what a file is."""
    file = open_ranges(place)
    try:
        return Stamp(place, file.size, file.version)
    finally:
        file.close()


def _copy_footer(place: str, path: Path) -> Stamp:
    """Make a file as long as another, with its footer and nothing else; return what it is of."""
    file = open_ranges(place)
    try:
        tail = file.read(max(0, file.size - 8), min(8, file.size))
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > min(_MAX_FOOTER, file.size - 8):
            raise DataError(f"{place}: not a parquet file")
        footer = file.read(file.size - 8 - length, length + 8)
        stamp = Stamp(place, file.size, file.version)
    finally:
        file.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        os.truncate(out.fileno(), stamp.size)
        out.write(_MAGIC)
        out.seek(stamp.size - len(footer))
        out.write(footer)
    return stamp
