"""Tables of URLs and captions: parquet and CSV, read by DuckDB itself."""

from __future__ import annotations

import glob
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from ...errors import DataError, MissingError, UsageError, suggest
from ..pool import add_columns, literal, pool_errors, quote
from ..schema import CORE_COLUMNS
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    SetAside,
    SqlSource,
    inside,
    is_column_name,
)

_WIDTHS = ("width", "original_width", "WIDTH")
_HEIGHTS = ("height", "original_height", "HEIGHT")


@dataclass(frozen=True)
class _TableSource(SqlSource):
    """A file or folder of files with a URL and a caption column."""

    url_column: str = ""
    text_column: str = ""
    extension: ClassVar[str]

    def load(self, connection: duckdb.DuckDBPyConnection, number: int) -> list[SetAside]:
        """Create ``incoming``: uids as given, or from URL and caption.

        A file that cannot be read is set aside; if no file can, the first one's error is raised.
        """
        connection.execute("DROP TABLE IF EXISTS incoming")
        aside: list[SetAside] = []
        first: DataError | UsageError | None = None
        loaded = False
        for file in self._files():
            name = file.name if file == self.path else str(file.relative_to(self.path))
            if not inside(self.path, file):
                aside.append(SetAside(name, "outside_root", "a link that leaves the folder"))
                continue
            try:
                with pool_errors(file):
                    aside += self._load_file(connection, file, name)
                loaded = True
            except (DataError, UsageError) as error:
                first = first or error
                aside.append(SetAside(name, "file_broken", str(error)[:300]))
        if not loaded:
            raise first or DataError(f"{self.path}: every file is a link that leaves the folder")
        with pool_errors(self.path):
            aside += _take_out(connection, "url IS NULL OR url = ''", "text", "no_url")
            long = f"strlen(text) > {MAX_CAPTION_BYTES}"
            aside += _take_out(connection, long, "url", "caption_too_long")
        return aside

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such file or folder")
        files = sorted(
            path
            for path in self.path.rglob(f"*{self.extension}")
            if path.is_file() and not path.name.startswith(".")
        )
        if not files:
            raise DataError(f"{self.path}: no {self.extension} files found")
        return files

    def _load_file(
        self, connection: duckdb.DuckDBPyConnection, file: Path, name: str
    ) -> list[SetAside]:
        """Append one file's rows to ``incoming``, all of them or none."""
        described = connection.execute(f"DESCRIBE SELECT * FROM {self._reader(file, ())}")
        columns = {row[0]: row[1] for row in described.fetchall()}
        url = self._pick(file, "url", self.url_column, URL_KEYS, columns)
        text = self._pick(file, "caption", self.text_column, CAPTION_KEYS, columns)
        as_text = tuple(c for c in dict.fromkeys((url, text, "uid", "sha256")) if c in columns)
        select = self._select(url, text, columns) + f" FROM {self._reader(file, as_text)}"
        kinds = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {select}").fetchall()}
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS incoming (uid UHUGEINT)")
        known = connection.execute("DESCRIBE incoming").fetchall()
        add_columns(connection, "incoming", {row[0]: row[1] for row in known}, kinds)
        connection.execute(f"INSERT INTO incoming BY NAME {select}")
        return self._rejected(connection, name)

    def _select(self, url: str, text: str, columns: dict[str, str]) -> str:
        uid = _uid_sql(url, text)
        if "uid" in columns:
            given = "uid::VARCHAR"
            uid = (
                f"CASE WHEN regexp_full_match({given}, '[0-9a-f]{{32}}') "
                f"THEN ('0x' || {given})::UHUGEINT ELSE {uid} END"
            )
        width = next((quote(name) for name in _WIDTHS if name in columns), "NULL")
        height = next((quote(name) for name in _HEIGHTS if name in columns), "NULL")
        sha256 = "sha256" if "sha256" in columns else "NULL"
        extra: dict[str, str] = {}
        for name, kind in columns.items():
            taken = name in (url, text) or name.lower() in CORE_COLUMNS or "BLOB" in kind
            if is_column_name(name) and not taken:
                extra.setdefault(name.lower(), name)
        return (
            f"SELECT {uid} AS uid, {quote(url)}::VARCHAR AS url, "
            f"coalesce({quote(text)}::VARCHAR, '') AS text, "
            f"TRY_CAST({width} AS INTEGER) AS width, TRY_CAST({height} AS INTEGER) AS height, "
            f'{sha256}::VARCHAR AS sha256, NULL::VARCHAR AS shard, NULL::BIGINT AS "offset", '
            "NULL::BIGINT AS length"
            + "".join(f", {quote(name)} AS {quote(low)}" for low, name in extra.items())
        )

    def _pick(
        self, file: Path, what: str, chosen: str, known: tuple[str, ...], columns: dict[str, str]
    ) -> str:
        if chosen and chosen not in columns:
            raise UsageError(
                f"{file}: no column {chosen!r}{suggest(chosen, list(columns))}; "
                f"there are: {', '.join(columns)}"
            )
        found = chosen or next((name for name in known if name in columns), "")
        if not found:
            option = "url_column" if what == "url" else "text_column"
            raise DataError(
                f"{file}: no {what} column (looked for {', '.join(known)}); "
                f"name it with --option {option}=NAME; there are: {', '.join(columns)}"
            )
        return found

    @abstractmethod
    def _reader(self, file: Path, as_text: tuple[str, ...]) -> str:
        """Return the SQL that reads a file; the columns ``as_text`` are not taken for numbers."""

    def _rejected(self, connection: duckdb.DuckDBPyConnection, name: str) -> list[SetAside]:
        return []


@dataclass(frozen=True)
class ParquetSource(_TableSource):
    """Parquet files with url and caption columns."""

    kind: ClassVar[str] = "parquet"
    extension: ClassVar[str] = ".parquet"

    def _reader(self, file: Path, as_text: tuple[str, ...]) -> str:
        return f"read_parquet([{_path_sql(file)}], hive_partitioning = false)"


@dataclass(frozen=True)
class CsvSource(_TableSource):
    """CSV or TSV files with a header; lines that do not parse are set aside."""

    kind: ClassVar[str] = "csv"
    extension: ClassVar[str] = ".csv"

    def _reader(self, file: Path, as_text: tuple[str, ...]) -> str:
        # A caption such as 007 or 1.50 must not be read as a number.
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in as_text)
        return (
            f"read_csv([{_path_sql(file)}], header = true, hive_partitioning = false, "
            "store_rejects = true, max_line_size = 4194304"
            + (f", types = {{{types}}})" if types else ")")
        )

    def _rejected(self, connection: duckdb.DuckDBPyConnection, name: str) -> list[SetAside]:
        # The sniffing DESCRIBE rejects lines too: a line counts once.
        rows = connection.execute(
            "SELECT line, min(error_type::VARCHAR) FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
        # DuckDB appends to these tables as long as the connection lives.
        connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        return [SetAside(f"{name}:{line}", "line_broken", str(kind)) for line, kind in rows]


def _take_out(
    connection: duckdb.DuckDBPyConnection, where: str, item: str, reason: str
) -> list[SetAside]:
    rows = connection.execute(
        f"DELETE FROM incoming WHERE {where} RETURNING left({item}, 200)"
    ).fetchall()
    return [SetAside(row[0], reason) for row in rows]


def _path_sql(file: Path) -> str:
    """Return an absolute path as SQL, so that DuckDB takes nothing in it for a pattern or URL."""
    return literal(glob.escape(str(file.absolute())))


def _uid_sql(url: str, text: str) -> str:
    """Return SQL for uid_of_url: the first 128 bits of SHA-256(url, 0x00, caption)."""
    caption = f"coalesce({quote(text)}::VARCHAR, '')"
    joined = f"encode({quote(url)}::VARCHAR) || '\\x00'::BLOB || encode({caption})"
    return f"('0x' || left(sha256({joined}), 32))::UHUGEINT"
