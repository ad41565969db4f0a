"""A folder of images with captions beside them.

Captions stand in a sidecar (``cat.jpg`` + ``cat.txt`` or ``cat.json``), or in a
``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet`` with a ``file_name`` column, the
Hugging Face ImageFolder convention.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError, MissingError, UnsafeInputError, UsageError
from ..images import EXTENSIONS, MAX_BYTES, ImageInfo, verify
from ..uids import is_uid, uid_of_bytes
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    Record,
    RecordSource,
    SetAside,
    caption_of,
    caption_of_values,
    inside,
    json_object,
    numbered_lines,
    printable,
    scalars,
    url_of,
)

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_WINDOW = 512
_NOT_COLUMNS = (*CAPTION_KEYS, *URL_KEYS, "file_name", "exif")

_Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class FolderSource(RecordSource):
    """Images below a folder, captions from sidecars or ImageFolder metadata."""

    kind: ClassVar[str] = "folder"

    def estimate(self) -> int | None:
        """Return the number of image files."""
        return sum(1 for _ in self._images())

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every image in path order; files are read and decoded by a few threads."""
        if self.path.is_file():
            raise UsageError(
                f"{self.path}: a file, but kind folder reads a folder of images; webdataset "
                "(.tar), commonpool and parquet (.parquet), csv (.csv, .tsv) and jsonl (.jsonl) "
                "read files"
            )
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such folder")
        files = list(self._images())
        if not files:
            raise DataError(
                f"{self.path}: no images found (looked for {', '.join(EXTENSIONS[:5])}, ...)"
            )
        metadata: dict[str, dict[str, Any]] = {}
        for item in self._metadata():
            if isinstance(item, SetAside):
                yield item
            elif item[0] in metadata:
                yield SetAside(item[0], "named_twice", "a second row of the metadata names it")
            else:
                metadata[item[0]] = item[1]
        listed = set(files)
        for name in sorted(metadata):
            if name not in listed:
                yield SetAside(name, "image_missing", "named in the metadata, but not there")
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
            for start in range(0, len(files), _WINDOW):
                window = files[start : start + _WINDOW]
                yield from threads.map(lambda name: self._read(name, metadata.get(name)), window)

    def _images(self) -> Iterator[str]:
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                extension = name.rpartition(".")[2].lower()
                if extension in EXTENSIONS and not name.startswith("."):
                    yield os.path.relpath(os.path.join(folder, name), self.path)

    def _metadata(self) -> Iterator[_Row | SetAside]:
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            base = os.path.relpath(folder, self.path)
            for name in sorted(set(names) & set(METADATA)):
                where = os.path.normpath(os.path.join(base, name))
                if not self._usable(self.path / where):
                    yield SetAside(where, "outside_root", "a link that leaves the folder")
                    continue
                try:
                    for row in _rows(self.path / where, where):
                        yield row if isinstance(row, SetAside) else _named(row, base, where)
                except OSError as error:
                    yield SetAside(where, "metadata_broken", error.strerror or str(error))

    def _usable(self, path: Path) -> bool:
        """Tell whether a path is a regular file that lies in the folder, links followed."""
        return inside(self.path, path) and path.is_file()

    def _read(self, name: str, row: dict[str, Any] | None) -> Record | SetAside:
        path = self.path / name
        if name != printable(name):
            return SetAside(name, "name_not_utf8", "rename the file")
        if not inside(self.path, path):
            return SetAside(name, "outside_root", "a link that leaves the folder")
        try:
            caption, values = self._caption(path, row)
        except ValueError as error:
            return SetAside(name, str(error))
        except OSError as error:
            return SetAside(name, "caption_unreadable", error.strerror or str(error))
        if caption is None:
            return SetAside(name, "no_caption", "no sidecar and no metadata row")
        read = read_image(path, name)
        if isinstance(read, SetAside):
            return read
        data, info = read
        uid = values.get("uid")
        return Record(
            uid=str(uid) if is_uid(uid) else uid_of_bytes(data, caption.encode()),
            url=url_of(values) or name,
            text=caption,
            width=info.width,
            height=info.height,
            sha256=hashlib.sha256(data).hexdigest(),
            shard=name,
            offset=0,
            length=len(data),
            extra=scalars(values, _NOT_COLUMNS),
        )

    def _caption(self, path: Path, row: dict[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
        values: dict[str, Any] = dict(row or {})
        sidecar = self._sidecar(path, ".json")
        if sidecar is not None:
            if len(sidecar) > MAX_CAPTION_BYTES:
                raise ValueError("json_too_long")
            values |= json_object(sidecar)
        text = self._sidecar(path, ".txt")
        return (caption_of_values(values) if text is None else caption_of(text)), values

    def _sidecar(self, path: Path, extension: str) -> bytes | None:
        """Return what stands beside an image, one byte more than is allowed at most."""
        sidecar = path.with_suffix(extension)
        if not self._usable(sidecar):
            return None
        with sidecar.open("rb") as file:
            return file.read(MAX_CAPTION_BYTES + 1)


def read_image(path: Path, name: str) -> tuple[bytes, ImageInfo] | SetAside:
    """Return an image file's bytes and what they hold, or why they cannot be used."""
    try:
        if not path.is_file():
            return SetAside(name, "image_unreadable", "not a regular file")
        if path.stat().st_size > MAX_BYTES:
            return SetAside(name, "image_unsafe", f"over {MAX_BYTES:,} bytes")
        data = path.read_bytes()
        return data, verify(data)
    except UnsafeInputError as error:
        return SetAside(name, "image_unsafe", str(error))
    except DataError as error:
        return SetAside(name, "image_broken", str(error))
    except OSError as error:
        return SetAside(name, "image_unreadable", error.strerror or str(error))


def _named(row: dict[str, Any], base: str, where: str) -> _Row | SetAside:
    """Return the image a row is about, relative to the root, with the row."""
    file_name = row.get("file_name")
    if not isinstance(file_name, str):
        return SetAside(where, "no_file_name", "a row has no file_name")
    name = os.path.normpath(os.path.join(base, file_name))
    if os.path.isabs(file_name) or name.split(os.sep)[0] == os.pardir:
        return SetAside(file_name[:200], "outside_root", f"{where} names a file outside")
    return name, row


def _rows(path: Path, where: str) -> Iterator[dict[str, Any] | SetAside]:
    """Yield the rows of a metadata file; a broken row is set aside by its line number."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, where)
    elif path.suffix == ".jsonl":
        with path.open("rb") as file:
            for number, line in numbered_lines(file):
                if len(line) > MAX_CAPTION_BYTES:
                    yield SetAside(f"{where}:{number}", "json_too_long")
                elif line.strip():
                    try:
                        yield json_object(line)
                    except ValueError as error:
                        yield SetAside(f"{where}:{number}", str(error))
    else:
        yield from _csv_rows(path, where)


def _parquet_rows(path: Path, where: str) -> Iterator[dict[str, Any] | SetAside]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        yield SetAside(where, "metadata_broken", " ".join(str(error).split())[:300])


def _csv_rows(path: Path, where: str) -> Iterator[dict[str, Any] | SetAside]:
    # What is not UTF-8 becomes lone surrogates, so that one such line does not end the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                item = f"{where}:{reader.line_num}"
                cells = row.values()
                if None in row or None in cells:
                    yield SetAside(item, "line_broken", "not as many fields as the header has")
                elif any(cell != printable(cell) for cell in cells):
                    yield SetAside(item, "line_broken", "not UTF-8")
                else:
                    yield row
        except csv.Error as error:
            yield SetAside(f"{where}:{reader.line_num}", "metadata_broken", str(error))
