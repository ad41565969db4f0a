"""What a source of samples must provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import duckdb

from ...durable import digest
from ...errors import UsageError, suggest

MAX_CAPTION_BYTES = 1 << 20
CAPTION_KEYS = ("text", "caption", "TEXT", "alt")
URL_KEYS = ("url", "URL", "image_url")


@dataclass(frozen=True, slots=True)
class Record:
    """A usable sample. The image lies at [offset, offset + length) of ``shard``, if at hand."""

    uid: str
    url: str | None
    text: str
    width: int | None
    height: int | None
    sha256: str | None
    shard: str | None = None
    offset: int | None = None
    length: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A sample that cannot be used: which, why (a code), and what exactly was wrong."""

    item: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Source(ABC):
    """A place samples come from. Options are the dataclass fields after ``path``."""

    kind: ClassVar[str]
    path: Path

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of this kind's options."""
        return [option.name for option in fields(cls) if option.name != "path"]

    @classmethod
    def with_options(cls, path: Path | str, options: dict[str, Any]) -> Self:
        """Make the source; an unknown option or one of the wrong type is a UsageError."""
        known = {option.name: option for option in fields(cls) if option.name != "path"}
        for name, value in options.items():
            if name not in known:
                accepted = f"options: {', '.join(known)}" if known else "it has no options"
                raise UsageError(
                    f"source {cls.kind}: unknown option {name!r}{suggest(name, list(known))}; "
                    f"{accepted}"
                )
            default = known[name].default
            if default is not None and not isinstance(value, _accepted(default)):
                raise UsageError(
                    f"source {cls.kind}: option {name} is {value!r}, "
                    f"expected {type(default).__name__}"
                )
        return cls(Path(path), **options)

    def options(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return {name: getattr(self, name) for name in self.option_names()}

    def signature(self) -> str:
        """Return a digest of the files' names, sizes and times: it changes when they do."""
        if not self.path.is_dir():
            files = [self.path] if self.path.is_file() else []
        else:
            files = sorted(path for path in self.path.rglob("*") if path.is_file())
        stats = [(str(path.relative_to(self.path)), path.stat()) for path in files]
        return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _accepted(default: Any) -> tuple[type, ...]:
    return (int, float) if type(default) is float else (type(default),)


class RecordSource(Source):
    """A source that is read sample by sample."""

    @abstractmethod
    def records(self) -> Iterator[Record | SetAside]:
        """Yield every sample, or why it cannot be used, in a fixed order."""

    def estimate(self) -> int | None:
        """Return how many samples there may be, for progress."""
        return None


class SqlSource(Source):
    """A source that DuckDB reads by itself."""

    @abstractmethod
    def load(self, connection: duckdb.DuckDBPyConnection, number: int) -> list[SetAside]:
        """Create the temporary table ``incoming`` and return what had to be set aside."""


def caption_of(raw: bytes) -> str:
    """Decode a caption; raise ValueError with a reason code for what cannot be one."""
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError("caption_too_long")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("caption_not_utf8") from None
    return text.replace("\0", "").strip("\r\n")


def scalars(values: dict[str, Any], leave_out: tuple[str, ...]) -> dict[str, Any]:
    """Keep what can be a column: strings, numbers and booleans under names not taken."""
    from ..schema import CORE_COLUMNS

    taken = {name.lower() for name in (*CORE_COLUMNS, *leave_out)}
    return {
        name.lower(): value
        for name, value in values.items()
        if name.isidentifier() and name.lower() not in taken and not name.startswith("_")
        and isinstance(value, str | int | float | bool) and len(str(value)) <= 4096
    }  # fmt: skip
