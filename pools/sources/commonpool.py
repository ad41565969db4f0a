"""DataComp's metadata: parquet files of candidates, each with features in an ``.npz`` beside it.

``DIR/*.parquet``, or ``DIR/part_*/*.parquet`` as the largest pools have it, or either below
``DIR/metadata``, where DataComp's own download puts them. What DataComp calls
``original_width`` is a pool's ``width`` too. ``metadata_file`` and ``metadata_row`` say where a
sample's row stands, and so its features (see ``pools/features.py``).
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from ...errors import DataError, MissingError
from ...progress import warn
from ..columns import columns_of, literal, quote
from ..connection import pool_errors
from ..footers import read_schema
from ..parallel import map_threads
from . import sound_rows
from .base import (
    CAPTION_KEYS,
    MAX_CAPTION_BYTES,
    URL_KEYS,
    LinkableSource,
    Scan,
    SetAside,
    inside,
    printable,
)
from .table import extra_columns

FILE, ROW = "metadata_file", "metadata_row"
"""Columns that say in which row of which file a sample's metadata stand."""
_MANY, _LOOKING = 64, 8
"""Of more files, so many footers are read at the same time: a file system may be slow."""


@dataclass(frozen=True)
class CommonPoolSource(LinkableSource):
    """DataComp's metadata: parquet files with uids, in a folder or its `part_*` folders.

    `link` reads the files where they are: nothing is copied.
    """

    kind: ClassVar[str] = "commonpool"
    link: bool = False

    @property
    def root(self) -> Path:
        """The folder that ``metadata_file`` is relative to."""
        return self.path.absolute() if self.path.is_dir() else self.path.absolute().parent

    def files(self, telling: bool = True) -> tuple[list[Path], list[SetAside]]:
        """Return the parquet files that can be read, sorted, and why others cannot."""
        found, strays = self.listed()
        if strays and telling:
            some = ", ".join(strays[:3]) + (f" and {len(strays) - 3:,} more" if strays[3:] else "")
            warn(f"{self.path}: ignored what is no metadata: {some}")
        workers = _LOOKING if len(found) > _MANY else 1
        troubles = list(map_threads(self._trouble, found, workers))
        files = [file for file, trouble in zip(found, troubles, strict=True) if trouble is None]
        aside = [trouble for trouble in troubles if trouble is not None]
        if not files:
            why = f": {aside[0].item}: {aside[0].detail}" if aside else ""
            raise DataError(f"{self.path}: no metadata found (parquet files with uids){why}")
        return files, aside

    def listed(self) -> tuple[list[Path], list[str]]:
        """Return what looks like metadata, and the names of what lies there besides."""
        if self.path.is_file():
            return [self.root / self.path.name], []
        if not self.path.is_dir():
            raise MissingError(f"{self.path}: no such file or folder")
        for base in (self.root, self.root / "metadata"):
            folders = [base, *sorted(base.glob("part_*"))]
            names = [p for f in folders if f.is_dir() for p in sorted(f.iterdir()) if p.is_file()]
            shown = [path for path in names if not path.name.startswith(".")]
            found = [path for path in shown if path.suffix == ".parquet"]
            if found:
                stems = {path.with_suffix("") for path in found}
                strays = [
                    printable(self._name(path))
                    for path in shown
                    if path.suffix != ".parquet"
                    and (path.suffix != ".npz" or path.with_suffix("") not in stems)
                ]
                return found, strays
        return [], []

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.root))

    def _trouble(self, file: Path) -> SetAside | None:
        """Say why a file cannot be read, from its footer."""
        import pyarrow as pa

        name = self._name(file)
        if name != printable(name):
            return SetAside(name, "name_not_utf8", "rename the file")
        if not inside(self.root, file):
            return SetAside(name, "outside_root", "a link that leaves the folder")
        try:
            schema = read_schema(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            return SetAside(name, "file_broken", " ".join(str(error).split())[:300])
        index = schema.get_field_index("uid")
        if index < 0 or not _is_text(schema.field(index).type):
            return SetAside(name, "file_foreign", "no column uid of text")
        return None

    def scan(self, connection: duckdb.DuckDBPyConnection, files: list[Path]) -> Scan:
        """Return the SQL that reads some of the files."""
        listed = ", ".join(literal(glob.escape(str(file))) for file in files)
        relation = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        name = f"filename[{len(str(self.root)) + 2}:]"
        return self._scan(connection, relation, name, "file_row_number")

    def sound(
        self, connection: duckdb.DuckDBPyConnection, file: Path
    ) -> tuple[Scan, list[SetAside]]:
        """Return the SQL of a file's rows but those with text that is not UTF-8, and those."""
        with pool_errors(self.path):
            columns = sound_rows.columns_of(file)
            text = next((name for name in CAPTION_KEYS if name in columns), "")
            aside = sound_rows.load(connection, file, self._name(file), text)
        name = literal(self._name(file))
        return self._scan(connection, sound_rows.TABLE, name, sound_rows.ROW), aside

    def _scan(
        self, connection: duckdb.DuckDBPyConnection, relation: str, name: str, row: str
    ) -> Scan:
        with pool_errors(self.path):
            columns = columns_of(connection, f"SELECT * FROM {relation}")
            (rows,) = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0]
        url = next((key for key in URL_KEYS if key in columns), "")
        text = next((key for key in CAPTION_KEYS if key in columns), "")
        # Of what is no hex digit, the cast takes underscores only; a regular expression costs more.
        given = (
            "CASE WHEN strlen(uid) = 32 AND NOT contains(uid, '_') "
            "THEN TRY_CAST('0x' || uid AS UHUGEINT) END"
        )
        core = {
            "url": f"{quote(url)}::VARCHAR" if url else "NULL::VARCHAR",
            "text": f"coalesce({quote(text)}::VARCHAR, '')" if text else "''",
            "width": _number("width", columns),
            "height": _number("height", columns),
            "sha256": "sha256::VARCHAR" if "sha256" in columns else "NULL::VARCHAR",
            "shard": "NULL::VARCHAR",
            "offset": "NULL::BIGINT",
            "length": "NULL::BIGINT",
            FILE: name,
            ROW: row,
        }
        values = ", ".join(f"{sql} AS {quote(column)}" for column, sql in core.items())
        return Scan(
            relation,
            uid=given,
            text="uid",
            values=values + extra_columns(columns, (url, text, FILE, ROW)),
            item=f"{name} || ': row ' || ({row} + 1)",
            row=row,
            reason=f"CASE WHEN ({given}) IS NULL THEN 'uid_broken' "
            f"WHEN strlen({core['text']}) > {MAX_CAPTION_BYTES} THEN 'caption_too_long' END",
            rows=rows,
        )


def _is_text(kind: object) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _number(side: str, columns: dict[str, str]) -> str:
    name = next((n for n in (side, f"original_{side}") if n in columns), None)
    return "NULL::INTEGER" if name is None else f"TRY_CAST({quote(name)} AS INTEGER)"
