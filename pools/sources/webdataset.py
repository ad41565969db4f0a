"""WebDataset tars, as img2dataset writes them: ``KEY.jpg``, ``KEY.txt``, ``KEY.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from ...errors import DataError, MissingError, UnsafeInputError
from .. import tar
from ..images import EXTENSIONS, MAX_BYTES, probe, verify
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

_NOT_COLUMNS = ("key", "status", "error_message", "exif", *CAPTION_KEYS, *URL_KEYS)


@dataclass(frozen=True)
class WebDatasetSource(RecordSource):
    """Tars below a folder, or one tar. ``verify`` decodes every image to its last byte."""

    kind: ClassVar[str] = "webdataset"
    verify: bool = True

    def tars(self) -> list[str]:
        """Return the names of the tars, relative to the path, sorted."""
        if self.path.is_file():
            return [self.path.name]
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such folder or tar")
        names = sorted(
            str(path.relative_to(self.path))
            for path in self.path.rglob("*.tar")
            if not path.name.startswith(".")
        )
        if not names:
            raise DataError(f"{self.path}: no .tar files found")
        return names

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every sample, tar by tar; a tar that cannot be trusted is set aside whole."""
        for name in self.tars():
            path = self.path if self.path.is_file() else self.path / name
            found: list[tar.TarSample] = []
            trouble: SetAside | None = None
            try:
                for sample in tar.samples(path):
                    found.append(sample)
            except UnsafeInputError as error:
                found, trouble = [], SetAside(name, "shard_unsafe", str(error))
            except DataError as error:
                trouble = SetAside(name, "shard_broken", str(error))
            with path.open("rb") as file:
                for sample in found:
                    yield self._read(name, file, sample)
            if trouble is not None:
                yield trouble

    def _read(self, shard: str, file: BinaryIO, sample: tar.TarSample) -> Record | SetAside:
        item = f"{shard}/{sample.key}"
        image = next((sample.members[e] for e in EXTENSIONS if e in sample.members), None)
        if image is None:
            return SetAside(item, "no_image", f"members: {', '.join(sorted(sample.members))[:80]}")
        try:
            values = _values(file, sample)
            caption = _caption(file, sample, values)
        except ValueError as error:
            return SetAside(item, str(error))
        if caption is None:
            return SetAside(item, "no_caption", "no .txt and no caption in the .json")
        if image.size > MAX_BYTES:
            return SetAside(item, "image_unsafe", f"over {MAX_BYTES:,} bytes")
        data = tar.read_member(file, image)
        try:
            info = verify(data) if self.verify else probe(data)
        except UnsafeInputError as error:
            return SetAside(item, "image_unsafe", str(error))
        except DataError as error:
            return SetAside(item, "image_broken", str(error))
        uid = values.get("uid")
        return Record(
            uid=uid if is_uid(uid) else uid_of_bytes(data, caption.encode()),  # pyright: ignore[reportArgumentType]
            url=next((values[key] for key in URL_KEYS if isinstance(values.get(key), str)), None),
            text=caption,
            width=info.width,
            height=info.height,
            sha256=hashlib.sha256(data).hexdigest(),
            shard=shard,
            offset=image.data,
            length=image.size,
            extra=scalars(values, _NOT_COLUMNS),
        )


def _values(file: BinaryIO, sample: tar.TarSample) -> dict[str, Any]:
    member = sample.members.get("json")
    if member is None:
        return {}
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError("json_too_long")
    try:
        values = json.loads(tar.read_member(file, member))
    except (ValueError, RecursionError):
        raise ValueError("json_broken") from None
    if not isinstance(values, dict):
        raise ValueError("json_broken")
    return values


def _caption(file: BinaryIO, sample: tar.TarSample, values: dict[str, Any]) -> str | None:
    member = sample.members.get("txt")
    if member is not None:
        if member.size > MAX_CAPTION_BYTES:
            raise ValueError("caption_too_long")
        return caption_of(tar.read_member(file, member))
    for key in CAPTION_KEYS:
        if isinstance(values.get(key), str):
            return caption_of(values[key].encode("utf-8", "surrogatepass"))
    return None


def tar_path(root: Path, name: str) -> Path:
    """Return where a tar of the source lies."""
    return root if root.is_file() else root / name
