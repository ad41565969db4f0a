"""Tables of URLs and captions: parquet, CSV and TSV, read by DuckDB itself."""

from __future__ import annotations

import csv
import functools
import glob
import itertools
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from ...errors import DataError, UsageError, suggest
from ..columns import add_columns, columns_of, literal, quote
from ..connection import one_line, pool_errors
from ..schema import CORE_COLUMNS
from ..staging import MAX_ITEM, put_aside
from . import sound_rows
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    SetAside,
    SqlSource,
    files_below,
    inside,
    is_column_name,
    printable,
)

# DuckDB appends to these tables as long as the connection lives.
_FORGET_REJECTED = "DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans"

_OTHER_KINDS = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl",), "parquet": (".parquet",)}
_WIDTHS = ("width", "original_width", "WIDTH")
_HEIGHTS = ("height", "original_height", "HEIGHT")


@dataclass(frozen=True)
class _TableSource(SqlSource):
    """A file or folder of files with a URL and a caption column."""

    url_column: str = ""
    text_column: str = ""
    extensions: ClassVar[tuple[str, ...]]

    def load(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Fill ``incoming``: uids as given, or from URL and caption.

        A file that cannot be read is set aside; if no file can, the first one's error is raised.
        """
        first: DataError | UsageError | None = None
        loaded = False
        for file in files_below(self.path, self.extensions):
            name = file.name if file == self.path else str(file.relative_to(self.path))
            aside: list[SetAside] = []
            if not inside(self.path, file):
                aside = [SetAside(name, "outside_root", "a link that leaves the folder")]
            else:
                try:
                    with pool_errors(file):
                        aside = self._load_file(connection, file, printable(name))
                    loaded = True
                except (DataError, UsageError) as error:
                    first = first or error
                    # What it rejected before it failed is not the next file's.
                    connection.execute(_FORGET_REJECTED)
                    aside = [SetAside(name, "file_broken", str(error)[:300])]
            put_aside(connection, aside)
        if not loaded:
            raise first or DataError(f"{self.path}: every file is a link that leaves the folder")
        with pool_errors(self.path):
            _take_out(connection, "url IS NULL OR url = ''", "coalesce(nullif(text, ''), _item)",
                      "no_url")  # fmt: skip
            _take_out(connection, f"strlen(text) > {MAX_CAPTION_BYTES}", "url", "caption_too_long")

    def _load_file(
        self, connection: duckdb.DuckDBPyConnection, file: Path, name: str
    ) -> list[SetAside]:
        """Append one file's rows to ``incoming``, all of them or none; return what it set aside."""
        columns = self._columns(connection, file)
        url = self._pick(file, "url", self.url_column, URL_KEYS, columns)
        text = self._pick(file, "caption", self.text_column, CAPTION_KEYS, columns)
        as_text = tuple(c for c in dict.fromkeys((url, text, "uid", "sha256")) if c in columns)
        select, aside = self._select(url, text, columns), []
        try:
            self._append(connection, f"{select} FROM {self._reader(file, as_text)}", name)
        except duckdb.Error as error:
            if not sound_rows.is_not_utf8(error):
                raise
            aside = sound_rows.load(connection, file, name, text)
            select = f"{select}, {sound_rows.ROW} FROM {sound_rows.TABLE}"
            self._append(connection, select, name, f"{sound_rows.ROW} + 1")
        self._note_rejected(connection, name, text)
        return aside

    def _append(
        self, connection: duckdb.DuckDBPyConnection, select: str, name: str,
        number: str = "row_number() OVER ()",
    ) -> None:  # fmt: skip
        kinds = columns_of(connection, select)
        kinds.pop(sound_rows.ROW, None)
        fitted = add_columns(connection, "incoming", kinds)
        before = connection.execute("SELECT coalesce(max(_row), -1) FROM incoming").fetchall()[0][0]
        row = literal(f"{name}: row ")
        connection.execute(
            f"INSERT INTO incoming BY NAME SELECT {before} + _n AS _row, "
            f"left(coalesce(nullif(url, ''), {row} || _n), {MAX_ITEM}) AS _item, "
            f"{', '.join(map(quote, fitted))} FROM (SELECT *, {number} AS _n "
            f"FROM ({select}))"
        )

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
        return (
            f"SELECT {uid} AS uid, {quote(url)}::VARCHAR AS url, "
            f"coalesce({quote(text)}::VARCHAR, '') AS text, "
            f"TRY_CAST({width} AS INTEGER) AS width, TRY_CAST({height} AS INTEGER) AS height, "
            f'{sha256}::VARCHAR AS sha256, NULL::VARCHAR AS shard, NULL::BIGINT AS "offset", '
            "NULL::BIGINT AS length" + extra_columns(columns, (url, text))
        )

    def _columns(self, connection: duckdb.DuckDBPyConnection, file: Path) -> dict[str, str]:
        """Return name and type of the file's columns; raise DataError if it cannot be read."""
        try:
            return columns_of(connection, f"SELECT * FROM {self._reader(file, ())}")
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            why = one_line(error).partition(" LINE 1:")[0].partition(" Error: ")[2]
            other = sorted(set(_OTHER_KINDS) - {self.kind})
            hint = next((f"; read it with --kind {kind}" for kind in other
                         if file.suffix.lower() in _OTHER_KINDS[kind]), "")  # fmt: skip
            raise DataError(f"{file}: cannot be read as {self.kind} ({why}){hint}") from None

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

    def _note_rejected(self, connection: duckdb.DuckDBPyConnection, name: str, text: str) -> None:
        """Set aside the lines of a file that do not parse."""


@dataclass(frozen=True)
class ParquetSource(_TableSource):
    """Parquet files with url and caption columns."""

    kind: ClassVar[str] = "parquet"
    extensions: ClassVar[tuple[str, ...]] = (".parquet",)

    def _reader(self, file: Path, as_text: tuple[str, ...]) -> str:
        return f"read_parquet([{_path_sql(file)}], hive_partitioning = false)"


@dataclass(frozen=True)
class CsvSource(_TableSource):
    """CSV or TSV files with a header; lines that do not parse are set aside."""

    kind: ClassVar[str] = "csv"
    extensions: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def _reader(self, file: Path, as_text: tuple[str, ...]) -> str:
        # A caption such as 007 or 1.50 must not be read as a number.
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in as_text)
        stat = file.stat()
        dialect = _csv_dialect(str(file), stat.st_size, stat.st_mtime_ns)
        if dialect.columns is not None:
            types = ", ".join(
                f"{literal(name)}: {literal('VARCHAR' if name in as_text else kind)}"
                for name, kind in dialect.columns
            )
            shape = f", auto_detect = false, columns = {{{types}}}"
        else:
            shape = f", types = {{{types}}}" if types else ""
        return f"read_csv([{_path_sql(file)}], {_CSV}, delim = {literal(dialect.delimiter)}{shape})"

    def _note_rejected(self, connection: duckdb.DuckDBPyConnection, name: str, text: str) -> None:
        """Set aside the lines of a file that do not parse."""
        # The sniffing DESCRIBE rejects lines too: a line counts once.
        connection.execute(
            f"INSERT INTO incoming_aside SELECT {literal(name + ':')} || line, "
            "CASE WHEN min(error_type::VARCHAR) <> 'INVALID ENCODING' "
            "OR max(error_type::VARCHAR) <> 'INVALID ENCODING' THEN 'line_broken' "
            f"WHEN bool_or(column_name = {literal(text)}) THEN 'caption_not_utf8' "
            "ELSE 'value_not_utf8' END, "
            "min(error_type::VARCHAR) FROM reject_errors GROUP BY line ORDER BY line"
        )
        connection.execute(_FORGET_REJECTED)


_CSV = (
    "header = true, hive_partitioning = false, store_rejects = true, max_line_size = 4194304, "
    "quote = '\"', escape = '\"'"
)


@dataclass(frozen=True)
class _Dialect:
    """How a CSV file is cut; ``columns`` are given where DuckDB cannot find them by itself."""

    delimiter: str
    columns: tuple[tuple[str, str], ...] | None


@functools.lru_cache(64)
def _csv_dialect(path: str, size: int, changed: int) -> _Dialect:
    """Look at a file's beginning. One unclosed quote makes DuckDB's own detection give up."""
    with open(path, "rb") as file:
        lines = file.read(_CSV_BEGINNING).decode("utf-8-sig", "replace").splitlines(True)
    if len(lines) > 1:
        lines.pop()  # it may be cut short
    tab = path.lower().endswith(".tsv")
    delimiter = "\t" if tab else max(",;\t|", key=lambda mark: lines[0].count(mark) if lines else 0)
    try:
        rows = list(itertools.islice(csv.reader(lines, delimiter=delimiter), _CSV_ROWS))
    except csv.Error:
        rows = []
    if not rows or len(set(rows[0])) != len(rows[0]) or not all(rows[0]):
        return _Dialect(delimiter, None)
    reader = f"read_csv([{_path_sql(Path(path))}], {_CSV}, delim = {literal(delimiter)})"
    try:
        with duckdb.connect() as connection:
            found = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
        if [row[0] for row in found] == rows[0]:
            return _Dialect(delimiter, None)
    except duckdb.Error:
        pass
    whole = [row for row in rows[1:] if len(row) == len(rows[0])]
    kinds = [_kind_of([row[place] for row in whole]) for place in range(len(rows[0]))]
    return _Dialect(delimiter, tuple(zip(rows[0], kinds, strict=True)))


def _kind_of(values: list[str]) -> str:
    """Return the DuckDB type that all of a column's values have."""
    given = [value for value in values if value]
    for kind, cast in (("BIGINT", int), ("DOUBLE", float)):
        try:
            for value in given:
                cast(value)
        except ValueError:
            continue
        return kind if given else "VARCHAR"
    return "VARCHAR"


_CSV_BEGINNING = 1 << 20
_CSV_ROWS = 1000


def extra_columns(columns: dict[str, str], taken: tuple[str, ...]) -> str:
    """Return the SQL of the columns that a table has besides; those of bytes are left out."""
    extra: dict[str, str] = {}
    for name, kind in columns.items():
        known = name in taken or name.lower() in CORE_COLUMNS or "BLOB" in kind
        if is_column_name(name) and not known:
            extra.setdefault(name.lower(), name)
    return "".join(f", {quote(name)} AS {quote(low)}" for low, name in extra.items())


def _take_out(connection: duckdb.DuckDBPyConnection, where: str, item: str, reason: str) -> None:
    connection.execute(
        f"INSERT INTO incoming_aside SELECT left({item}, {MAX_ITEM}), {literal(reason)}, '' "
        f"FROM incoming WHERE {where} ORDER BY _row"
    )
    connection.execute(f"DELETE FROM incoming WHERE {where}")


def _path_sql(file: Path) -> str:
    """Return an absolute path as SQL, so that DuckDB takes nothing in it for a pattern or URL."""
    return literal(glob.escape(str(file.absolute())))


def _uid_sql(url: str, text: str) -> str:
    """Return SQL for uid_of_url: the first 128 bits of SHA-256(url, 0x00, caption)."""
    caption = f"coalesce({quote(text)}::VARCHAR, '')"
    joined = f"encode({quote(url)}::VARCHAR) || '\\x00'::BLOB || encode({caption})"
    return f"('0x' || left(sha256({joined}), 32))::UHUGEINT"
