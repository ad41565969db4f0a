"""JSON lines of URLs and captions: one object per line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..uids import is_uid, uid_of_url
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    Record,
    RecordSource,
    SetAside,
    caption_of_values,
    files_below,
    inside,
    json_object,
    numbered_lines,
    printable,
    scalars,
    url_of,
)

_SIDE = 1 << 31


@dataclass(frozen=True)
class JsonlSource(RecordSource):
    """JSON lines with URL and caption; lines that cannot be used are set aside by number."""

    kind: ClassVar[str] = "jsonl"

    def records(self) -> Iterator[Record | SetAside]:
        """Yield every line of every file."""
        for file in files_below(self.path, (".jsonl",)):
            name = printable(file.name if file == self.path else str(file.relative_to(self.path)))
            if not inside(self.path, file):
                yield SetAside(name, "outside_root", "a link that leaves the folder")
                continue
            try:
                with file.open("rb") as opened:
                    for number, line in numbered_lines(opened):
                        if line.strip():
                            yield _read(f"{name}:{number}", line)
            except OSError as error:
                yield SetAside(name, "file_broken", error.strerror or str(error))


def _read(item: str, line: bytes) -> Record | SetAside:
    if len(line) > MAX_CAPTION_BYTES:
        return SetAside(item, "json_too_long")
    try:
        values = json_object(line)
        caption = caption_of_values(values)
    except ValueError as error:
        return SetAside(item, str(error))
    url = url_of(values)
    if not url:
        return SetAside(item, "no_url")
    if caption is None:
        return SetAside(item, "no_caption", f"none of {', '.join(CAPTION_KEYS)}")
    uid, sha256 = values.get("uid"), values.get("sha256")
    return Record(
        uid=str(uid) if is_uid(uid) else uid_of_url(url, caption),
        url=url,
        text=caption,
        width=_side(values.get("width")),
        height=_side(values.get("height")),
        sha256=printable(sha256) if isinstance(sha256, str) else None,
        extra=scalars(values, (*CAPTION_KEYS, *URL_KEYS)),
        item=item,
    )


def _side(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _SIDE else None
