"""Image datasets of the Hugging Face hub: parquet files that hold the images' bytes.

A pool reads images from byte ranges of files, which compressed parquet does not have, so the
images are unpacked once: each parquet file becomes a tar of the same name. A file that has not
changed since is not unpacked again. The tar of one that has changed takes the old one's place once
the pool has its samples: until then, the old one holds the images of those that it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...durable import atomic_path, read_json, storage_errors, write_json
from ...errors import DatacompError, DataError, UsageError, suggest
from ...progress import Progress
from ..images import MAX_BYTES, probe
from ..tar import TarWriter
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    Record,
    SetAside,
    files_below,
    inside,
    printable,
)
from .table import ParquetSource
from .webdataset import WebDatasetSource

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES = ("image", "img", "jpg", "png", "webp")
_LABELS = ("label", "labels", "class", "fine_label")
_ROWS = 64
_LAYOUT = 2
"""Number of the tars' layout: another one is unpacked anew."""


@dataclass(frozen=True)
class HuggingFaceSource(WebDatasetSource):
    """Parquet files with images in them. `path` is the folder they are unpacked into, as tars."""

    kind: ClassVar[str] = "huggingface"
    data: str = ""
    image_column: str = ""
    text_column: str = ""

    def records(self) -> Iterator[Record | SetAside]:
        """Unpack what is not unpacked yet, then yield every sample of every tar."""
        yield from self._unpack()
        yield from super().records()

    def tar_to_read(self, name: str) -> Path:
        """Return the tar just unpacked, or the one that was there."""
        fresh = _fresh(self.path / name)
        return fresh if fresh.is_file() else self.path / name

    def settle(self) -> None:
        """Let each tar that was unpacked anew take its place."""
        for _, name in self._files():
            tar = self.path / name
            fresh = _fresh(tar)
            if fresh.is_file():
                with storage_errors(tar):
                    _marker(tar).unlink(missing_ok=True)
                    fresh.replace(tar)
                    if _marker(fresh).is_file():
                        _marker(fresh).replace(_marker(tar))

    def signature(self) -> str:
        """Return a digest of the names, sizes and times of the files to unpack."""
        return ParquetSource(Path(self.data)).signature()

    def tars(self) -> list[str]:
        """Return the tars of the files that are there now, relative to the path."""
        return [tar for _, tar in self._files() if self.tar_to_read(tar).is_file()]

    def _files(self) -> list[tuple[Path, str]]:
        """Return every parquet file with the name of its tar."""
        root = Path(self.data)
        base = root if root.is_dir() else root.parent
        return [
            (file, str(file.relative_to(base).with_suffix(".tar")))
            for file in files_below(root, (".parquet",))
        ]

    def _unpack(self) -> Iterator[SetAside]:
        """Unpack every file; yield those that cannot be read."""
        if not self.data:
            raise UsageError(
                f"source {self.kind}: option data=FOLDER is missing: where the dataset's parquet "
                f"files lie ({self.path} is where their images go)"
            )
        files = self._files()
        base = Path(self.data)
        base = base if base.is_dir() else base.parent
        first: DataError | UsageError | None = None
        read = 0
        with Progress("unpacking images", len(files), "files") as progress:
            for file, tar in files:
                try:
                    if not inside(base, file) or tar != printable(tar):
                        raise DataError(f"{printable(str(file))}: a link that leaves the folder, "
                                        "or a name that is no text")  # fmt: skip
                    self._unpack_file(file, self.path / tar)
                    read += 1
                except (DataError, UsageError) as error:
                    first = first or error  # its tar, if there is one, holds images of the pool
                    yield SetAside(str(file.relative_to(base)), "file_broken", str(error)[:300])
                progress.advance(1)
        if not read and first is not None:
            raise first

    def _unpack_file(self, file: Path, tar: Path) -> None:
        """Make the tar of a file, unless it is there and the file is the same as then."""
        stat = file.stat()
        identity = {
            "layout": _LAYOUT, "size": stat.st_size, "time": stat.st_mtime_ns,
            "image_column": self.image_column, "text_column": self.text_column,
        }  # fmt: skip
        if _is_of(tar, identity):
            for stale in (_marker(_fresh(tar)), _fresh(tar)):
                stale.unlink(missing_ok=True)
            return
        if tar.is_file() or _fresh(tar).is_file():
            tar = _fresh(tar)
            if _is_of(tar, identity):
                return
        _marker(tar).unlink(missing_ok=True)
        with atomic_path(tar) as partial, partial.open("wb") as opened:
            writer = TarWriter(opened)
            for number, (image, text, values) in enumerate(self._rows(file)):
                key = f"{number:08d}"
                if image is not None:
                    writer.add(f"{key}.{_extension(image)}", image)
                writer.add(f"{key}.json", json.dumps(values, default=str).encode())
                if text is not None:
                    writer.add(f"{key}.txt", text)
            writer.close()
        write_json(_marker(tar), identity)

    def _rows(self, file: Path) -> Iterator[tuple[bytes | None, bytes | None, dict[str, Any]]]:
        """Yield image, caption and the other values of every row; None for what is not there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                image, text = self._image_column(file, schema), self._text_column(file, schema)
                names = _class_names(schema, text)
                others = [f.name for f in schema if f.name not in (image, text) and _plain(f.type)]
                columns = [image, text, *others]
                for batch in opened.iter_batches(_ROWS, columns=columns):
                    for row in _texts_as_bytes(batch).to_pylist():
                        yield (
                            _bytes_of(row[image]),
                            _caption_of(row[text], names),
                            {n: _value(row[n]) for n in others if row[n] is not None},
                        )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{file}: {' '.join(str(error).split())[:200]}") from error

    def _image_column(self, file: Path, schema: pa.Schema) -> str:
        """Return the column of the images: structs with bytes, or plain bytes."""
        import pyarrow.types as kinds

        def holds_bytes(kind: Any) -> bool:
            if kinds.is_struct(kind):
                return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
            return kinds.is_binary(kind) or kinds.is_large_binary(kind)

        fitting = [field.name for field in schema if holds_bytes(field.type)]
        known = [name for name in _IMAGES if name in fitting]
        return self._picked(file, "image", self.image_column, known or fitting, schema)

    def _text_column(self, file: Path, schema: pa.Schema) -> str:
        """Return the column of the captions, or that of named classes."""
        labels = [name for name in _LABELS if name in schema.names and _class_names(schema, name)]
        known = [name for name in CAPTION_KEYS if name in schema.names]
        return self._picked(file, "text", self.text_column, known + labels, schema)

    def _picked(
        self, file: Path, what: str, chosen: str, found: list[str], schema: pa.Schema
    ) -> str:
        there = ", ".join(schema.names)
        if chosen and chosen not in schema.names:
            hint = suggest(chosen, schema.names)
            raise UsageError(f"{file}: no column {chosen!r}{hint}; there are: {there}")
        if not chosen and not found:
            raise DataError(
                f"{file}: no {what} column; name it with --option {what}_column=NAME; "
                f"there are: {there}"
            )
        return chosen or found[0]


def _fresh(tar: Path) -> Path:
    """Return where a tar is unpacked while another one of its name is in use."""
    return tar.with_name(f".{tar.name}.new")


def _marker(tar: Path) -> Path:
    """Return the file that says which file a tar was unpacked from."""
    return tar.with_name(tar.name + ".from.json")


def _is_of(tar: Path, identity: dict[str, Any]) -> bool:
    try:
        return tar.is_file() and read_json(_marker(tar), 1 << 16) == identity
    except DatacompError:
        return False


def _plain(kind: Any) -> bool:
    import pyarrow.types as kinds

    return (
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_boolean(kind)
        or kinds.is_string(kind)
        or kinds.is_large_string(kind)
    )


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of a column of class numbers, as the dataset's own metadata give them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []


def _texts_as_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch in which text is bytes: one that is not UTF-8 must not cost the whole file."""
    import pyarrow as pa
    import pyarrow.types as kinds

    def raw(column: pa.Array) -> pa.Array:
        kind = column.type
        if kinds.is_string(kind) or kinds.is_large_string(kind):
            return column.cast(pa.large_binary())
        if kinds.is_list(kind) and kinds.is_string(kind.value_type):
            return column.cast(pa.list_(pa.binary()))
        return column

    return pa.RecordBatch.from_arrays([raw(c) for c in batch.columns], names=batch.schema.names)


def _value(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _bytes_of(value: Any) -> bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and 0 < len(value) <= MAX_BYTES else None


def _caption_of(value: Any, names: list[str]) -> bytes | None:
    if value is None:
        return b""
    if isinstance(value, list) and value:
        value = value[0]  # several captions of one image: the first
    if names and isinstance(value, int) and 0 <= value < len(names):
        value = names[value]
    if isinstance(value, str):
        value = printable(value).encode()
    # One byte more than is allowed is enough to be told why it is set aside.
    return value[: MAX_CAPTION_BYTES + 1] if isinstance(value, bytes) else None


def _extension(image: bytes) -> str:
    try:
        found = probe(image).format.lower()
    except DataError:
        return "jpg"
    return "jpg" if found == "jpeg" else found
