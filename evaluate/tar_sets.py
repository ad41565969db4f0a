"""Evaluation sets in WebDataset tars: labels, metadata and captions, read and checked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from tokenize import TokenError

import numpy as np

from ..errors import DataError, UnsafeInputError
from ..pools import images, tar
from ..pools.ranges import is_remote
from .samples import Flawed, Sample, lines
from .stream import streamed
from .tasks import GROUPED, Task

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")
MAX_LABEL_BYTES = 64
MAX_CAPTION_BYTES = 1 << 20
MAX_METADATA_BYTES = 4096


def count(shards: Sequence[str]) -> int | None:
    """Return how many samples the tars hold, reading headers only; None where that takes hours.

    A remote tar has to be read whole for it.
    """
    if any(map(is_remote, shards)):
        return None
    return sum(1 for shard in shards for _ in tar.samples(shard))


def samples(
    shards: Sequence[str], task: Task, classes: int, digests: dict[str, str]
) -> Iterator[Sample | Flawed]:
    """Yield the samples of the tars; see :meth:`EvalSet.samples`.

    Each tar is read once. When it is through, its SHA-256 stands in ``digests``.
    """
    for shard in shards:
        name = shard.rpartition("/")[2]
        with streamed(shard) as stream:
            for found in tar.samples_in(stream, shard):
                key = f"{name}:{found.key}"
                image = next((e for e in IMAGE_EXTENSIONS if e in found.members), None)
                if image is None:
                    yield Flawed(key, "no image")
                elif found.members[image].size > images.MAX_BYTES:
                    yield Flawed(key, "image too large")
                else:
                    member = found.members[image]
                    data = stream(member.data, member.size)
                    yield _sample(_Reader(stream, shard, found), key, data, task, classes)
                stream.release(found.end)
            digests[shard] = stream.digest()


def _sample(reader: _Reader, key: str, data: bytes, task: Task, classes: int) -> Sample | Flawed:
    if task.family == "retrieval":
        captions = tuple(line for line in lines(reader.text("txt", MAX_CAPTION_BYTES)) if line)
        return Sample(key, data, captions=captions) if captions else Flawed(key, "no caption")
    metadata = reader.metadata(task.fields) if task.family in GROUPED else ()
    label = -1 if task.family == "faces" else reader.label(classes)
    return Sample(key, data, label=label, metadata=metadata)


class _Reader:
    """Reads what stands beside one sample's image."""

    def __init__(self, window: tar.Window, shard: str, found: tar.TarSample) -> None:
        self._window, self._found = window, found
        self._where = f"{shard}: sample {found.key[:80]!r}"

    def label(self, classes: int) -> int:
        """Return the label, a line number of the class names."""
        text = self.text("cls", MAX_LABEL_BYTES).strip()
        if not (text.isascii() and text.isdigit()):
            raise DataError(f"{self._where}: label is {text[:20]!r}, expected a whole number")
        if int(text) >= classes:
            raise DataError(
                f"{self._where}: label is {int(text)}, but classnames.txt has {classes} classes "
                f"(0 to {classes - 1})"
            )
        return int(text)

    def metadata(self, fields: tuple[str, ...]) -> tuple[float, ...]:
        """Return the metadata, one number a field; nothing of the array is unpickled."""
        data = self._member("npy", MAX_METADATA_BYTES)
        stream = io.BytesIO(data)
        formats = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        try:
            shape, _, dtype = formats[np.lib.format.read_magic(stream)](stream)
        except (ValueError, KeyError, SyntaxError, TypeError, EOFError, RecursionError, TokenError):
            raise DataError(f"{self._where}: .npy is not an array") from None
        if dtype.hasobject:
            raise UnsafeInputError(f"{self._where}: .npy holds objects, which could run code")
        if shape != (len(fields),):
            raise DataError(
                f"{self._where}: .npy has shape {shape}, expected {len(fields)} numbers "
                f"({', '.join(fields)})"
            )
        raw = data[stream.tell() :]
        if dtype.kind not in "iufb" or len(raw) != dtype.itemsize * len(fields):
            raise DataError(f"{self._where}: .npy does not hold {len(fields)} plain numbers")
        return tuple(np.frombuffer(raw, dtype).astype(np.float64).tolist())

    def text(self, extension: str, limit: int) -> str:
        """Return a text member."""
        try:
            return self._member(extension, limit).decode()
        except UnicodeDecodeError:
            raise DataError(f"{self._where}: .{extension} is not UTF-8 text") from None

    def _member(self, extension: str, limit: int) -> bytes:
        member = self._found.members.get(extension)
        if member is None:
            raise DataError(f"{self._where}: no .{extension} beside the image")
        if member.size > limit:
            raise UnsafeInputError(f"{self._where}: .{extension} of {member.size:,} bytes")
        return self._window(member.data, member.size)
