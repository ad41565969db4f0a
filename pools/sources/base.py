"""What a source of samples must provide."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

from ...durable import digest
from ...errors import DataError, MissingError, UsageError, suggest
from ..images import EXTENSIONS
from ..schema import CORE_COLUMNS
from ..tar import Member, TarSample, Window

if TYPE_CHECKING:
    import duckdb

MAX_CAPTION_BYTES = 1 << 20
MAX_VALUE = 4096
MAX_COLUMN_NAME = 64
CAPTION_KEYS = ("text", "caption", "TEXT", "alt")
URL_KEYS = ("url", "URL", "image_url")


@dataclass(frozen=True, slots=True)
class Record:
    """A usable sample. The image lies at [offset, offset + length) of ``shard``, if at hand.

    ``item`` names it in lists, where shard or URL do not.
    """

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
    item: str | None = None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A sample that cannot be used: which, why (a code), and what exactly was wrong."""

    item: str
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        # A name on disk need not be UTF-8, but what a pool stores must be.
        for name in ("item", "reason", "detail"):
            object.__setattr__(self, name, printable(getattr(self, name)))


@dataclass(frozen=True)
class Source(ABC):
    """A place samples come from. Options are the dataclass fields after ``path``."""

    kind: ClassVar[str]
    pattern: ClassVar[str] = "*"
    """Names of the files in a folder that the source may read."""
    file_options: ClassVar[tuple[str, ...]] = ()
    """Options that name files; a study takes them relative to its configuration."""
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
            if type(value) not in _accepted(default):
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
            files = sorted(path for path in self.path.rglob(self.pattern) if path.is_file())
        stats = [(printable(str(path.relative_to(self.path))), path.stat()) for path in files]
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

    def settle(self) -> None:
        """Let go of what was read before: the pool has taken over what ``records`` yielded."""


class SqlSource(Source):
    """A source that DuckDB reads by itself."""

    @abstractmethod
    def load(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Fill the temporary tables ``incoming`` and ``incoming_aside``.

        Both are there already (see ``pools/adding.py``); columns may be added to ``incoming``.
        """


UID_TEXT = '"uid:text"'
"""The column, quoted, that a view of linked files has besides those of ``samples``."""


@dataclass(frozen=True)
class Scan:
    """What a linkable source reads, as SQL over one ``relation``.

    ``uid`` is the uid or NULL, ``text`` what it is read from, ``values`` are the other columns of
    ``samples`` (not ``source``), ``item`` names a row, ``row`` numbers it within its file, and
    ``reason`` says why it cannot be used or is NULL. ``rows`` is how many there are.
    """

    relation: str
    uid: str
    text: str
    values: str
    item: str
    row: str
    reason: str
    rows: int

    def usable(self, besides: str = "") -> str:
        """Return the SELECT of what can be used, with other columns besides."""
        return (
            f"SELECT {self.uid} AS uid, {self.values}{besides} FROM {self.relation} "
            f"WHERE ({self.reason}) IS NULL"
        )

    def unusable(self) -> str:
        """Return the SELECT of item, reason and detail of what cannot be used."""
        return (
            f"SELECT {self.item} AS item, {self.reason} AS reason, '' AS detail "
            f"FROM {self.relation} WHERE ({self.reason}) IS NOT NULL"
        )

    def every(self) -> str:
        """Return the SELECT of all rows, which fails at one that has no uid.

        It has the uid as text besides, ``UID_TEXT``: for those who need no number of it.
        """
        uid = f"coalesce({self.uid}, error('a uid that is not 32 hex digits: ' || {self.item}))"
        return f"SELECT {uid} AS uid, {self.values}, {self.text} AS {UID_TEXT} FROM {self.relation}"


class LinkableSource(Source):
    """A source that is one SELECT: it can be copied in bulk, or linked, which copies nothing."""

    link: bool

    @abstractmethod
    def listed(self) -> tuple[list[Path], list[str]]:
        """Return the files there are, and the names of those that are none of the source's."""

    @abstractmethod
    def files(self, telling: bool = True) -> tuple[list[Path], list[SetAside]]:
        """Return the files to read and why others are not read.

        What is none of the source's is ignored, with a warning if ``telling``. Raises
        MissingError or DataError if there is nothing to read.
        """

    @abstractmethod
    def scan(self, connection: duckdb.DuckDBPyConnection, files: list[Path]) -> Scan:
        """Return how to read some of the files."""

    @abstractmethod
    def sound(
        self, connection: duckdb.DuckDBPyConnection, file: Path
    ) -> tuple[Scan, list[SetAside]]:
        """Return how to read a file's rows but those with text that is not UTF-8, and those."""


def caption_of(raw: bytes) -> str:
    """Decode a caption; raise ValueError with a reason code for what cannot be one."""
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError("caption_too_long")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("caption_not_utf8") from None
    return text.replace("\0", "").strip("\r\n")


def scalars(values: Mapping[str, Any], leave_out: tuple[str, ...]) -> dict[str, Any]:
    """Keep what can be a column: strings, numbers and booleans under names not taken."""
    taken = {name.lower() for name in (*CORE_COLUMNS, *leave_out)}
    return {
        name.lower(): printable(value) if isinstance(value, str) else value
        for name, value in values.items()
        if is_column_name(name)
        and name.lower() not in taken
        and isinstance(value, str | int | float | bool)
        and len(str(value)) <= MAX_VALUE
    }


def is_column_name(name: str) -> bool:
    """Tell whether a stranger's name may become a column: a plain word that SQL does not use."""
    plain = name.isidentifier() and not name.startswith("_") and len(name) <= MAX_COLUMN_NAME
    return plain and name.lower() != "rowid"


def url_of(values: Mapping[str, Any]) -> str | None:
    """Return the URL among a sample's values, if there is one."""
    found = next((values[key] for key in URL_KEYS if isinstance(values.get(key), str)), None)
    return None if found is None else printable(found)


def printable(text: str) -> str:
    """Return ``text`` with what UTF-8 cannot hold (lone surrogates) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def inside(root: Path, path: Path) -> bool:
    """Tell whether ``path``, links followed, lies in ``root`` (or is it)."""
    return path.resolve().is_relative_to(root.resolve())


def files_below(path: Path, extensions: tuple[str, ...]) -> list[Path]:
    """Return ``path`` if it is a file, else the files below it that end so, sorted.

    Raises MissingError or DataError where there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingError(f"{path}: no such file or folder")
    files = sorted(
        found
        for found in path.rglob("*")
        if found.suffix.lower() in extensions and found.is_file() and not found.name.startswith(".")
    )
    if not files:
        raise DataError(f"{path}: no {' or '.join(extensions)} files found")
    return files


# -- the members of a tar sample -------------------------------------------------------------


def image_member(sample: TarSample) -> Member | None:
    """Return the member that is the sample's image."""
    return next((sample.members[e] for e in EXTENSIONS if e in sample.members), None)


def values_of_sample(window: Window, sample: TarSample) -> dict[str, Any]:
    """Return what a sample's ``.json`` says; raise ValueError with a reason code if broken."""
    member = sample.members.get("json")
    if member is None:
        return {}
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError("json_too_long")
    return json_object(window(member.data, member.size))


def caption_of_sample(window: Window, sample: TarSample, values: Mapping[str, Any]) -> str | None:
    """Return the caption from a sample's ``.txt``, or else from its values.

    Raises ValueError with a reason code for what cannot be a caption.
    """
    member = sample.members.get("txt")
    if member is None:
        return caption_of_values(values)
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError("caption_too_long")
    return caption_of(window(member.data, member.size))


def caption_of_values(values: Mapping[str, Any]) -> str | None:
    """Return the caption among a sample's values, as ``caption_of`` would read it."""
    for key in CAPTION_KEYS:
        if isinstance(values.get(key), str):
            return caption_of(values[key].encode("utf-8", "surrogatepass"))
    # As in a table: a caption that is null is an empty one.
    return "" if any(key in values and values[key] is None for key in CAPTION_KEYS) else None


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError with a reason code for anything else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("json_broken") from None
    if not isinstance(value, dict):
        raise ValueError("json_broken")
    return value


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield number and start of each line, one byte more than a caption may have at most."""
    number = 0
    while line := file.readline(MAX_CAPTION_BYTES + 1):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(MAX_CAPTION_BYTES + 1)):
            pass
        yield number, line
