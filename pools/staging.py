"""What a source brings, laid out in temporary tables before it is merged into the pool.

DuckDB moves the tables to the disk when they are long.

- ``incoming``: the samples, numbered by ``_row`` in the order of the source, named by ``_item``;
- ``incoming_aside``: what cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ..errors import DataError
from ..progress import Progress
from .columns import MAX_COLUMNS, add_columns, columns_of, quote, warn_of_columns
from .connection import pool_errors
from .schema import CORE_COLUMNS
from .sources import sound_rows
from .sources.base import LinkableSource, Record, RecordSource, Scan, SetAside

BATCH = 4096
BATCH_CHARACTERS = 1 << 25
"""A batch ends early when its captions and values are longer than this."""

MAX_ITEM = 200
TABLES = ("incoming", "incoming_aside", sound_rows.TABLE)

_LARGEST = 1 << 63
_INCOMING = {name: kind for name, kind in CORE_COLUMNS.items() if name != "source"}


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary tables, empty."""
    columns = ", ".join(f"{quote(name)} {kind}" for name, kind in _INCOMING.items())
    connection.execute(
        f"CREATE TEMP TABLE incoming (_row BIGINT, _item VARCHAR, {columns});"
        "CREATE TEMP TABLE incoming_aside (item VARCHAR, reason VARCHAR, detail VARCHAR)"
    )


def put_aside(connection: duckdb.DuckDBPyConnection, items: list[SetAside]) -> None:
    """Note what cannot be used, for the source that is being added."""
    if not items:
        return
    table = pa.table(
        {name: [getattr(item, name) for item in items] for name in ("item", "reason", "detail")}
    )
    _insert(connection, table, "incoming_aside SELECT *")


def put_aside_of(connection: duckdb.DuckDBPyConnection, number: int, items: list[SetAside]) -> None:
    """Note in the pool itself which files of a source cannot be used."""
    for item in items:
        connection.execute(
            "INSERT INTO set_aside VALUES (?, ?, ?, ?)",
            [number, item.item, item.reason, item.detail],
        )


def _insert(connection: duckdb.DuckDBPyConnection, table: pa.Table, what: str) -> None:
    connection.register("incoming_arrow", table)
    try:
        connection.execute(f"INSERT INTO {what} FROM incoming_arrow")
    finally:
        connection.unregister("incoming_arrow")


def read_records(connection: duckdb.DuckDBPyConnection, path: Path, source: RecordSource) -> None:
    """Stage every record of a source; ``path`` is that of the pool, for errors."""
    extras = _Extras()
    row = 0
    with Progress(f"adding {source.kind}", source.estimate()) as progress:
        for batch in _batched(source.records()):
            records = [item for item in batch if isinstance(item, Record)]
            with pool_errors(path):
                put_aside(connection, [item for item in batch if isinstance(item, SetAside)])
                if records:
                    extras.make_room(connection, records)
                    _stage(connection, row, records, extras)
            row += len(records)
            progress.advance(len(batch))
    with pool_errors(path):
        extras.settle_types(connection)


def load_scans(
    connection: duckdb.DuckDBPyConnection,
    source: LinkableSource,
    files: list[Path],
    aside: list[SetAside],
) -> None:
    """Stage a linkable source file by file; one that cannot be read to its end is set aside."""
    put_aside(connection, aside)
    broken: list[SetAside] = []
    for number, file in enumerate(files):
        try:
            with pool_errors(file):
                try:
                    _load_scan(connection, source.scan(connection, [file]), number)
                except duckdb.Error as error:
                    if not sound_rows.is_not_utf8(error):
                        raise
                    scan, rows = source.sound(connection, file)
                    _load_scan(connection, scan, number)
                    put_aside(connection, rows)
        except DataError as error:
            if len(files) == 1:
                raise
            broken.append(SetAside(file.name, "file_broken", str(error)[:300]))
    put_aside(connection, broken)


def _load_scan(connection: duckdb.DuckDBPyConnection, scan: Scan, number: int) -> None:
    select = scan.usable(
        f", {number << 40} + {scan.row} AS _row, left({scan.item}, {MAX_ITEM}) AS _item"
    )
    kinds = columns_of(connection, select)
    fitted = add_columns(connection, "incoming", kinds)
    connection.execute(
        f"INSERT INTO incoming BY NAME SELECT {', '.join(map(quote, fitted))} FROM ({select})"
    )
    connection.execute(f"INSERT INTO incoming_aside {scan.unusable()}")


def _batched(items: Iterator[Record | SetAside]) -> Iterator[list[Record | SetAside]]:
    batch: list[Record | SetAside] = []
    characters = 0
    for item in items:
        batch.append(item)
        if isinstance(item, Record):
            characters += len(item.text) + sum(len(str(value)) for value in item.extra.values())
        if len(batch) == BATCH or characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _stage(
    connection: duckdb.DuckDBPyConnection, row: int, records: list[Record], extras: _Extras
) -> None:
    columns: dict[str, pa.Array] = {
        "_row": pa.array(range(row, row + len(records)), pa.int64()),
        "_item": pa.array([_item(record)[:MAX_ITEM] for record in records], pa.string()),
    }
    for name, kind in _INCOMING.items():
        arrow = {"INTEGER": pa.int32(), "BIGINT": pa.int64()}.get(kind, pa.string())
        columns[name] = pa.array([getattr(record, name) for record in records], arrow)
    for name in extras.kinds:
        values = [_text(record.extra.get(name)) for record in records]
        columns[name] = pa.array(values, pa.string())
    _insert(
        connection,
        pa.table(columns),
        "incoming BY NAME SELECT * REPLACE (('0x' || uid)::UHUGEINT AS uid)",
    )


def _item(record: Record) -> str:
    return record.item or record.shard or record.url or record.uid


class _Extras:
    """The columns a source brings besides. They are text until all of them are known.

    So the type of a column depends on all its values and not on how they fall into batches:
    integers, numbers or truth values where all are alike, else text.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, set[str]] = {}
        self._left_out: dict[str, None] = {}

    def make_room(self, connection: duckdb.DuckDBPyConnection, records: list[Record]) -> None:
        """Add a text column for every name not met before; remember the kinds of values."""
        for record in records:
            for name, value in record.extra.items():
                if value is None:
                    continue
                if name in self.kinds:
                    self.kinds[name].add(_kind(value))
                elif len(self.kinds) + len(CORE_COLUMNS) < MAX_COLUMNS:
                    self.kinds[name] = {_kind(value)}
                    connection.execute(f"ALTER TABLE incoming ADD COLUMN {quote(name)} VARCHAR")
                elif len(self._left_out) < MAX_COLUMNS:
                    self._left_out[name] = None

    def settle_types(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Give every column its type."""
        for name, kinds in self.kinds.items():
            numbers = kinds == {"BIGINT", "DOUBLE"}
            if numbers or len(kinds) == 1:
                kind = "DOUBLE" if numbers else next(iter(kinds))
                connection.execute(f"ALTER TABLE incoming ALTER {quote(name)} TYPE {kind}")
        warn_of_columns(list(self._left_out))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return "BIGINT"
    return "DOUBLE" if isinstance(value, float) else "VARCHAR"


def _text(value: Any) -> str | None:
    """Write a value as DuckDB would."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
