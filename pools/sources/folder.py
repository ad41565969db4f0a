"""A folder of images with captions beside them.

Captions stand in a sidecar (``cat.jpg`` + ``cat.txt`` or ``cat.json``), or in a
``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet`` with a ``file_name`` column, the
Hugging Face ImageFolder convention.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError, MissingError, UnsafeInputError
from ..images import EXTENSIONS, MAX_BYTES, verify
from ..uids import is_uid, uid_of_bytes
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    Record,
    RecordSource,
    SetAside,
    caption_of,
    scalars,
)

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_WINDOW = 512


@dataclass(frozen=True)
class FolderSource(RecordSource):
    """Images below a folder, captions from sidecars or ImageFolder metadata."""

    kind: ClassVar[str] = "folder"

    def estimate(self) -> int | None:
        """Return the number of image files."""
        return sum(1 for _ in self._images())

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every image in path order; files are read and decoded by a few threads."""
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

    def _metadata(self) -> Iterator[tuple[str, dict[str, Any]] | SetAside]:
        for folder, _, names in os.walk(self.path):
            for name in sorted(set(names) & set(METADATA)):
                here = Path(folder) / name
                base = os.path.relpath(folder, self.path)
                for row in _rows(here):
                    if isinstance(row, SetAside):
                        yield row
                        continue
                    file_name = row.get("file_name")
                    if not isinstance(file_name, str):
                        yield SetAside(str(here), "no_file_name", "a row has no file_name")
                        continue
                    inside = os.path.normpath(os.path.join(base, file_name))
                    if os.path.isabs(file_name) or inside.startswith(".."):
                        yield SetAside(file_name[:200], "outside_root", "leaves the folder")
                        continue
                    yield inside, row

    def _read(self, name: str, row: dict[str, Any] | None) -> Record | SetAside:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            return SetAside(name, "outside_root", "a link that leaves the folder")
        try:
            caption, values = self._caption(path, row)
        except ValueError as error:
            return SetAside(name, str(error))
        except OSError as error:
            return SetAside(name, "caption_unreadable", str(error))
        if caption is None:
            return SetAside(name, "no_caption", "no sidecar and no metadata row")
        try:
            if path.stat().st_size > MAX_BYTES:
                return SetAside(name, "image_unsafe", f"over {MAX_BYTES:,} bytes")
            data = path.read_bytes()
            info = verify(data)
        except UnsafeInputError as error:
            return SetAside(name, "image_unsafe", str(error))
        except DataError as error:
            return SetAside(name, "image_broken", str(error))
        except OSError as error:
            return SetAside(name, "image_unreadable", str(error))
        uid = values.get("uid")
        url = next((values[key] for key in URL_KEYS if isinstance(values.get(key), str)), name)
        return Record(
            uid=uid if is_uid(uid) else uid_of_bytes(data, caption.encode()),  # pyright: ignore[reportArgumentType]
            url=url,
            text=caption,
            width=info.width,
            height=info.height,
            sha256=hashlib.sha256(data).hexdigest(),
            shard=name,
            offset=0,
            length=len(data),
            extra=scalars(values, (*CAPTION_KEYS, *URL_KEYS, "file_name", "exif")),
        )

    def _caption(self, path: Path, row: dict[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
        values: dict[str, Any] = dict(row or {})
        sidecar = path.with_suffix(".json")
        if sidecar.is_file():
            values |= _json_object(_bounded(sidecar))
        text = path.with_suffix(".txt")
        if text.is_file():
            return caption_of(_bounded(text)), values
        for key in CAPTION_KEYS:
            if isinstance(values.get(key), str):
                return caption_of(values[key].encode("utf-8", "surrogatepass")), values
        return None, values


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_CAPTION_BYTES + 1)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("json_broken") from None
    if not isinstance(value, dict):
        raise ValueError("json_broken")
    return value


def _rows(path: Path) -> Iterator[dict[str, Any] | SetAside]:
    """Yield the rows of a metadata file; a broken row is set aside by its line number."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            yield SetAside(str(path), "metadata_broken", str(error).splitlines()[0])
        return
    with path.open("rb") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield _json_object(line)
                    except ValueError as error:
                        yield SetAside(f"{path}:{number}", str(error))
            return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, strict=True)
    except (csv.Error, UnicodeDecodeError) as error:
        yield SetAside(str(path), "metadata_broken", str(error))
