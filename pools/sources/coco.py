"""Annotated images in COCO's JSON or kwcoco's: captions, categories, boxes and polygons.

A sample is an image with one caption; an image with five captions is five samples, and one
without any gets the names of its categories as text (``cat, dog``). All annotations of the
image but its captions are kept, as JSON, in the column ``annotations``: category, box, polygons
(``segmentation``) as they stand in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from ...durable import read_json
from ...errors import DataError, MissingError, UsageError
from ..uids import uid_of_bytes, uid_of_url
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    Record,
    RecordSource,
    SetAside,
    caption_of_values,
    inside,
    printable,
)
from .folder import read_image

MAX_JSON = 1 << 30
"""The largest file read: all of it must be in memory. COCO's own are up to 450 MB."""

_URLS = ("coco_url", "url", "flickr_url")
_WINDOW = 512
_KEPT = ("bbox", "segmentation", "area", "iscrowd", "keypoints", "score", "weight")

_Object = dict[str, Any]


@dataclass(frozen=True)
class CocoSource(RecordSource):
    """COCO or kwcoco JSON, and the images it names below the same folder."""

    kind: ClassVar[str] = "coco"
    file: str = ""
    images: str = ""

    @classmethod
    def with_options(cls, path: Path | str, options: dict[str, Any]) -> Self:
        """Make the source; a JSON file as path means its folder and that file."""
        path = Path(path)
        if path.is_file() and "file" not in options:
            return super().with_options(path.parent, {**options, "file": path.name})
        return super().with_options(path, options)

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every image, caption by caption, in the order of the file."""
        content = self._read(self._json())
        items = list(_joined(content))
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
            for start in range(0, len(items), _WINDOW):
                for samples in threads.map(self._samples, items[start : start + _WINDOW]):
                    yield from samples

    def _json(self) -> Path:
        """Return the file to read: the one named, or the only one there."""
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such folder")
        if self.file:
            found = self.path / self.file
            if not inside(self.path, found):
                raise UsageError(f"{self.path}: option file={self.file!r} leaves the folder")
            return found
        places = (self.path, self.path / "annotations")
        names = [p for place in places for p in sorted(place.glob("*.json")) if p.is_file()]
        if len(names) != 1:
            there = ", ".join(printable(str(p.relative_to(self.path))) for p in names) or "none"
            raise UsageError(f"{self.path}: which JSON file? Name it with --option file=NAME; "
                             f"there are: {there}")  # fmt: skip
        return names[0]

    def _read(self, path: Path) -> _Object:
        content = read_json(path, MAX_JSON)
        lists = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise DataError(f"{path}: not COCO (no list 'images')")
        for name in lists:
            if not isinstance(content.setdefault(name, []), list):
                raise DataError(f"{path}: not COCO ({name!r} is no list)")
        return content

    def _samples(self, item: tuple[_Object, list[str], list[_Object]] | SetAside) -> list[Any]:
        """Return the samples of one image, or why there are none."""
        if isinstance(item, SetAside):
            return [item]
        image, captions, annotations = item
        name = printable(image["file_name"])
        extra = self._columns(image, annotations)
        if len(extra["annotations"]) > MAX_CAPTION_BYTES:
            return [SetAside(name, "json_too_long", "the annotations of one image")]
        path = self.path / self.images / image["file_name"]
        if not inside(self.path, path):
            return [SetAside(name, "outside_root", "a path that leaves the folder")]
        url = next((image[key] for key in _URLS if isinstance(image.get(key), str)), None)
        texts = captions or [", ".join(dict.fromkeys(extra["categories"].split("\n")))]
        if not path.exists():
            if url is None:
                return [SetAside(name, "image_missing", "named in the JSON, but not there")]
            url = printable(url)
            return [
                Record(uid_of_url(url, text), url, text, _side(image.get("width")),
                       _side(image.get("height")), None, extra=extra, item=name)
                for text in texts
            ]  # fmt: skip
        read = read_image(path, name)
        if isinstance(read, SetAside):
            return [read]
        data, info = read
        sha256 = hashlib.sha256(data).hexdigest()
        shard = os.path.relpath(path, self.path)
        return [
            Record(uid_of_bytes(data, text.encode()), None if url is None else printable(url), text,
                   info.width, info.height, sha256, shard, 0, len(data), extra, name)
            for text in texts
        ]  # fmt: skip

    def _columns(self, image: _Object, annotations: list[_Object]) -> dict[str, Any]:
        kept = json.dumps(annotations, separators=(",", ":"))
        names = "\n".join(a["category"] for a in annotations if "category" in a)
        number = image.get("id")
        found: dict[str, Any] = {"annotations": kept, "categories": names}
        if type(number) is int and abs(number) < 1 << 63:
            found["image_id"] = number
        return found


def _joined(content: _Object) -> Iterator[tuple[_Object, list[str], list[_Object]] | SetAside]:
    """Yield every image with its captions and its other annotations."""
    names = {
        category.get("id"): printable(category["name"])
        for category in _objects(content["categories"], "id", int | str)
        if isinstance(category.get("name"), str)
    }
    captions: dict[Any, list[str]] = {}
    others: dict[Any, list[_Object]] = {}
    for annotation in _objects(content["annotations"], "image_id", int | str):
        number = annotation["image_id"]
        try:
            caption = caption_of_values({k: v for k, v in annotation.items() if v is not None})
        except ValueError as error:
            yield SetAside(f"annotation {str(annotation.get('id'))[:40]}", str(error))
            continue
        if caption is not None:
            captions.setdefault(number, []).append(caption)
        else:
            kept = {key: annotation[key] for key in _KEPT if annotation.get(key) is not None}
            category = annotation.get("category_id")
            if isinstance(category, int | str) and category in names:
                kept = {"category": names[category]} | kept
            others.setdefault(number, []).append(kept)
    met: set[Any] = set()
    for place, image in enumerate(content["images"]):
        item = f"image {place + 1}"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            yield SetAside(item, "json_broken", "an image without an id")
        elif image["id"] in met:
            yield SetAside(item, "named_twice", f"another image has the id {image['id']!r:.40}")
        elif not isinstance(image.get("file_name"), str) or "\0" in image["file_name"]:
            yield SetAside(item, "no_file_name", "an image without a file_name")
        else:
            met.add(image["id"])
            own = [caption for key in CAPTION_KEYS if isinstance(caption := image.get(key), str)]
            found = captions.get(image["id"], []) or [printable(text) for text in own[:1]]
            yield image, list(dict.fromkeys(found)), others.get(image["id"], [])


def _objects(values: list[Any], key: str, kind: Any) -> Iterator[_Object]:
    """Yield what is an object with a usable key: others belong to no image."""
    for value in values:
        if isinstance(value, dict) and isinstance(value.get(key), kind):
            yield value


def _side(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 31 else None
