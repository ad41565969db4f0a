"""Tables of URLs and captions: parquet and CSV, read by DuckDB itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from ...errors import DataError, MissingError, UsageError, suggest
from ..pool import literal, quote
from ..schema import CORE_COLUMNS
from .base import CAPTION_KEYS, URL_KEYS, SetAside, SqlSource

_WIDTHS = ("width", "original_width", "WIDTH")
_HEIGHTS = ("height", "original_height", "HEIGHT")


@dataclass(frozen=True)
class _TableSource(SqlSource):
    """A file or folder of files with a URL and a caption column."""

    url_column: str = ""
    text_column: str = ""
    extension: ClassVar[str]

    def load(self, connection: duckdb.DuckDBPyConnection, number: int) -> list[SetAside]:
        """Create ``incoming``: uids as given, or from URL and caption."""
        files, aside = self._files(connection)
        reader = self._reader(files)
        described = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
        columns = {row[0]: row[1] for row in described}
        url = self._pick("url", self.url_column, URL_KEYS, columns)
        text = self._pick("caption", self.text_column, CAPTION_KEYS, columns)
        uid = (
            f"CASE WHEN regexp_full_match(uid, '[0-9a-f]{{32}}') "
            f"THEN ('0x' || uid)::UHUGEINT ELSE {_uid_sql(url, text)} END"
            if columns.get("uid") == "VARCHAR"
            else _uid_sql(url, text)
        )
        width = next((quote(name) for name in _WIDTHS if name in columns), "NULL")
        height = next((quote(name) for name in _HEIGHTS if name in columns), "NULL")
        sha256 = "sha256" if columns.get("sha256") == "VARCHAR" else "NULL"
        taken = {name.lower() for name in (*CORE_COLUMNS, url, text)}
        extra = "".join(
            f", {quote(name)} AS {quote(name.lower())}"
            for name in columns
            if name.lower() not in taken and name.isidentifier()
        )
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE incoming AS SELECT {uid} AS uid, "
            f"{quote(url)}::VARCHAR AS url, coalesce({quote(text)}::VARCHAR, '') AS text, "
            f"TRY_CAST({width} AS INTEGER) AS width, TRY_CAST({height} AS INTEGER) AS height, "
            f'{sha256}::VARCHAR AS sha256, NULL::VARCHAR AS shard, NULL::BIGINT AS "offset", '
            f"NULL::BIGINT AS length{extra} FROM {reader}"
        )
        aside += self._rejected(connection)
        missing = connection.execute(
            "DELETE FROM incoming WHERE url IS NULL OR url = '' RETURNING text"
        ).fetchall()
        aside += [SetAside(row[0][:200], "no_url") for row in missing]
        return aside

    def _files(self, connection: duckdb.DuckDBPyConnection) -> tuple[list[str], list[SetAside]]:
        if self.path.is_file():
            files = [self.path]
        elif self.path.is_dir():
            files = sorted(
                path for path in self.path.rglob(f"*{self.extension}")
                if path.is_file() and not path.name.startswith(".")
            )  # fmt: skip
        else:
            raise MissingError(f"{self.path}: no such file or folder")
        if not files:
            raise DataError(f"{self.path}: no {self.extension} files found")
        good, aside = [], []
        for path in files:
            try:
                connection.execute(f"DESCRIBE SELECT * FROM {self._reader([str(path)])}")
                good.append(str(path))
            except duckdb.Error as error:
                detail = " ".join(str(error).split())[:300]
                aside.append(SetAside(str(path), "file_broken", detail))
        if not good:
            raise DataError(f"{self.path}: no readable table: {aside[0].detail}")
        return good, aside

    def _pick(self, what: str, chosen: str, known: tuple[str, ...], columns: dict[str, str]) -> str:
        if chosen and chosen not in columns:
            raise UsageError(
                f"{self.path}: no column {chosen!r}{suggest(chosen, list(columns))}; "
                f"there are: {', '.join(columns)}"
            )
        found = chosen or next((name for name in known if name in columns), "")
        if not found:
            option = "url_column" if what == "url" else "text_column"
            raise DataError(
                f"{self.path}: no {what} column (looked for {', '.join(known)}); "
                f"name it with --option {option}=NAME; there are: {', '.join(columns)}"
            )
        return found

    def _reader(self, files: list[str]) -> str:
        raise NotImplementedError

    def _rejected(self, connection: duckdb.DuckDBPyConnection) -> list[SetAside]:
        return []


@dataclass(frozen=True)
class ParquetSource(_TableSource):
    """Parquet files with url and caption columns."""

    kind: ClassVar[str] = "parquet"
    extension: ClassVar[str] = ".parquet"

    def _reader(self, files: list[str]) -> str:
        return f"read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"


@dataclass(frozen=True)
class CsvSource(_TableSource):
    """CSV or TSV files with a header; lines that do not parse are set aside."""

    kind: ClassVar[str] = "csv"
    extension: ClassVar[str] = ".csv"

    def _reader(self, files: list[str]) -> str:
        return (
            f"read_csv([{', '.join(map(literal, files))}], header = true, union_by_name = true, "
            "store_rejects = true, max_line_size = 4194304)"
        )

    def _rejected(self, connection: duckdb.DuckDBPyConnection) -> list[SetAside]:
        rows = connection.execute(
            "SELECT DISTINCT f.file_path, e.line, e.error_type FROM reject_errors e "
            "JOIN reject_scans f USING (scan_id, file_id) ORDER BY ALL"
        ).fetchall()
        return [
            SetAside(f"{Path(p).name}:{line}", "line_broken", str(kind)) for p, line, kind in rows
        ]


def _uid_sql(url: str, text: str) -> str:
    """Return SQL for uid_of_url: the first 128 bits of SHA-256(url, 0x00, caption)."""
    joined = f"encode({quote(url)}::VARCHAR) || '\\x00'::BLOB || encode(coalesce({quote(text)}::VARCHAR, ''))"
    return f"('0x' || left(sha256({joined}), 32))::UHUGEINT"
