"""WebDataset tars, as img2dataset writes them: ``KEY.jpg``, ``KEY.txt``, ``KEY.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import DataError, MissingError, UnsafeInputError
from .. import tar
from ..images import MAX_BYTES, probe, verify
from ..uids import is_uid, uid_of_bytes
from .base import (
    CAPTION_KEYS,
    URL_KEYS,
    Record,
    RecordSource,
    SetAside,
    caption_of_sample,
    image_member,
    inside,
    printable,
    scalars,
    url_of,
    values_of_sample,
)

_NOT_COLUMNS = ("key", "status", "error_message", "exif", *CAPTION_KEYS, *URL_KEYS)


@dataclass(frozen=True)
class WebDatasetSource(RecordSource):
    """Tars below a folder, or one tar. ``verify`` decodes every image to its last byte."""

    kind: ClassVar[str] = "webdataset"
    pattern: ClassVar[str] = "*.tar"
    verify: bool = True

    def tars(self) -> list[str]:
        """Return the names of the tars, relative to the path, sorted."""
        if self.path.is_file():
            return [self.path.name]
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such folder or tar")
        names = sorted(
            str(path.relative_to(self.path))
            for path in self.path.rglob(self.pattern)
            if path.is_file() and not path.name.startswith(".")
        )
        if not names:
            raise DataError(f"{self.path}: no .tar files found")
        return names

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every sample, tar by tar; a tar that cannot be trusted is set aside whole."""
        for name in self.tars():
            path = self.tar_to_read(name)
            if not inside(self.path, path):
                yield SetAside(name, "outside_root", "a link that leaves the folder")
                continue
            if name != printable(name):
                yield SetAside(name, "name_not_utf8", "rename the tar")
                continue
            try:
                yield from self._tar(name, path)
            except OSError as error:
                yield SetAside(name, "shard_unreadable", error.strerror or str(error))

    def tar_to_read(self, name: str) -> Path:
        """Return where the tar of a name lies while the source is read."""
        return tar_path(self.path, name)

    def _tar(self, name: str, path: Path) -> Iterator[Record | SetAside]:
        found: list[tar.TarSample] = []
        torn: set[str] = set()
        trouble: SetAside | None = None
        with path.open("rb", buffering=0) as file:
            window = tar.Window(file.fileno())
            try:
                for sample in tar.samples_in(window, str(path), torn=torn):
                    found.append(sample)
            except UnsafeInputError as error:
                found, trouble = [], SetAside(name, "shard_unsafe", str(error))
            except DataError as error:
                trouble = SetAside(name, "shard_broken", str(error))
            for sample in found:
                if sample.key in torn:
                    yield SetAside(
                        f"{name}/{sample.key}", tar.MEMBERS_APART, "others stand between"
                    )
                else:
                    yield self._read(name, window, sample)
        if trouble is not None:
            yield trouble

    def _read(self, shard: str, window: tar.Window, sample: tar.TarSample) -> Record | SetAside:
        item = f"{shard}/{sample.key}"
        image = image_member(sample)
        if image is None:
            return SetAside(item, "no_image", f"members: {', '.join(sorted(sample.members))[:80]}")
        try:
            values = values_of_sample(window, sample)
            caption = caption_of_sample(window, sample, values)
        except ValueError as error:
            return SetAside(item, str(error))
        if caption is None:
            return SetAside(item, "no_caption", "no .txt and no caption in the .json")
        if image.size > MAX_BYTES:
            return SetAside(item, "image_unsafe", f"over {MAX_BYTES:,} bytes")
        data = window(image.data, image.size)
        try:
            info = verify(data) if self.verify else probe(data)
        except UnsafeInputError as error:
            return SetAside(item, "image_unsafe", str(error))
        except DataError as error:
            return SetAside(item, "image_broken", str(error))
        uid = values.get("uid")
        return Record(
            uid=str(uid) if is_uid(uid) else uid_of_bytes(data, caption.encode()),
            url=url_of(values),
            text=caption,
            width=info.width,
            height=info.height,
            sha256=hashlib.sha256(data).hexdigest(),
            shard=shard,
            offset=image.data,
            length=image.size,
            extra=scalars(values, _NOT_COLUMNS),
            item=item,
        )


def tar_path(root: Path, name: str) -> Path:
    """Return where a tar of the source lies."""
    return root if root.is_file() else root / name
