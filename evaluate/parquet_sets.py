"""Evaluation sets in parquet files with the Hub's columns: image-text pairs and WinoGAViL.

An image is a struct of ``bytes`` and ``path``; only the bytes are used, no path is followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..pools import images
from ..pools.ranges import is_remote
from .samples import Flawed, Puzzle, Sample
from .stream import local_copy
from .tasks import Task

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow.parquet as pq

ROWS_AT_ONCE = 16
MAX_CANDIDATES = 100
_WINOGAVIL = ("candidate_images", "cue", "candidates", "associations")


def count(files: Sequence[str]) -> int | None:
    """Return how many rows the files have, reading their footers only; None for remote ones."""
    if any(map(is_remote, files)):
        return None
    total = 0
    for file in files:
        with _opened(file, file) as table:
            total += table.metadata.num_rows
    return total


def samples(
    files: Sequence[str], task: Task, classes: int, digests: dict[str, str]
) -> Iterator[Sample | Flawed]:
    """Yield the image-text pairs of the files; see :meth:`EvalSet.samples`."""
    for key, row in rows_of(files, ("image", "caption"), digests):
        image = _bytes(row["image"])
        captions = [row["caption"]] if isinstance(row["caption"], str) else row["caption"]
        captions = _texts(captions)
        if image is None or len(image) > images.MAX_BYTES:
            yield Flawed(key, "no image" if image is None else "image too large")
        elif not captions:
            yield Flawed(key, "no caption")
        else:
            yield Sample(key, image, captions=captions)


def puzzles(files: Sequence[str], digests: dict[str, str]) -> Iterator[Puzzle | Flawed]:
    """Yield the instances of WinoGAViL; one that cannot be solved is yielded as Flawed."""
    for key, row in rows_of(files, _WINOGAVIL, digests):
        candidates, associations = (_texts(row[name]) for name in ("candidates", "associations"))
        found = row["candidate_images"]
        pictures = [_bytes(image) for image in found] if isinstance(found, list) else []
        right = tuple(name in associations for name in candidates)
        cue = row["cue"]
        reason = None
        if not isinstance(cue, str) or not cue.strip():
            reason = "no cue"
        elif len(pictures) != len(candidates) or not 0 < len(pictures) <= MAX_CANDIDATES:
            reason = f"{len(pictures)} images of {len(candidates)} candidates"
        elif not any(right):
            reason = "no candidate is an association"
        whole = tuple(p for p in pictures if p is not None and len(p) <= images.MAX_BYTES)
        if reason is None and len(whole) < len(pictures):
            reason = "a candidate without an image"
        if reason is not None:
            yield Flawed(key, reason)
        else:
            names = tuple(hashlib.sha256(picture).hexdigest() for picture in whole)
            yield Puzzle(key, cue, whole, right, names)


def rows_of(
    files: Sequence[str], columns: Sequence[str], digests: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with the name it goes by; each file leaves its SHA-256."""
    for file in files:
        name, number = file.rpartition("/")[2], 0
        with local_copy(file) as (path, sha256), _opened(file, path) as table:
            digests[file] = sha256
            have = table.schema_arrow.names
            for column in columns:
                if column not in have:
                    raise DataError(f"{file}: no column {column!r}; there are: {', '.join(have)}")
            for batch in _batches(table, columns, file):
                for row in batch:
                    yield f"{name}:{number}", row
                    number += 1


def _opened(file: str, path: Path | str) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a parquet file: {_one_line(error)}") from None


def _batches(
    table: pq.ParquetFile, columns: Sequence[str], file: str
) -> Iterator[list[dict[str, Any]]]:
    import pyarrow as pa

    try:
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            yield batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: a damaged parquet file: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _bytes(image: Any) -> bytes | None:
    data = image.get("bytes") if isinstance(image, dict) else image
    return data if isinstance(data, bytes) and data else None


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(value for value in values if isinstance(value, str) and value.strip())
