"""What makes questions about millions of samples quick: a copy of what they look at, once made.

``POOL.browse/index.duckdb`` beside a pool has a table in the order of the pool: where a sample
stands (``_row``), its caption in lower case (``_folded``), its length (``_caption``), caption and
URL as they are, the columns of numbers, and every score. Texts are not compressed, so that looking
through them costs little more than reading them. A second table has the samples that the overview
draws; the drawing is kept beside it. The pool itself is only read. An index holds for the pool as
it was then: ``current`` tells whether it still is that.
"""

from __future__ import annotations

import contextlib
import glob
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from ...durable import atomic_directory, read_json, storage_errors, write_json
from ...errors import DatacompError
from ...pools.columns import columns_of, quote
from ...pools.connection import BESIDE, attach, connect, pool_errors
from ...pools.pool import Pool
from ...pools.sources.base import is_column_name
from ...progress import say
from ..report.distributions import columns_for
from ..report.matching import a_share_of, scores_of
from .overview import Drawing, draw

VERSION = 2
FROM = 500_000
"""How many samples make an index worth its while: fewer are looked through in a fraction of a
second."""
SAMPLES, DRAWN = "indexed_samples", "drawn_samples"
"""The tables of an index: of all samples, and of those that the overview draws."""
INDEX, SAMPLE = f"{BESIDE}.{SAMPLES}", f"{BESIDE}.{DRAWN}"
"""Their names in SQL beside the pool."""
MAX_NUMBERS = 64
"""How many columns of numbers are taken over."""

TEXTS_UP_TO = 40_000_000
"""Captions and URLs as they are make an index three times as large; of more samples they would be
too many to be looked through in a second anyway."""

_PLAIN = ("_folded", "text", "url")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "BOOLEAN")
_DRAWING = "drawing.json"
_MAX_ABOUT = 1 << 12
_MAX_DRAWING = 1 << 22
_ABANDONED = 3600


def folder_of(pool: Path) -> Path:
    """Return where the index of a pool lies: ``POOL.browse``."""
    return pool.with_name(pool.name + ".browse")


def file_of(pool: Path) -> Path:
    """Return the file of a pool's index."""
    return folder_of(pool) / "index.duckdb"


def current(pool: Path) -> bool:
    """Tell whether a pool has an index that was made of it as it is now."""
    try:
        about = read_json(folder_of(pool) / "about.json", _MAX_ABOUT)
    except DatacompError:
        return False
    return about == _about(pool) and file_of(pool).is_file()


def drawing_of(pool: Path) -> Drawing:
    """Return what the overview of a pool with a current index is drawn of.

    Raises DataError if it is damaged.
    """
    return Drawing.from_dict(read_json(folder_of(pool) / _DRAWING, _MAX_DRAWING))


def _about(pool: Path) -> dict[str, Any]:
    """Return what an index of the pool as it is now says of itself."""
    files = (pool, pool.with_name(pool.name + ".wal"))
    stats = [file.stat() if file.is_file() else None for file in files]
    return {
        "version": VERSION,
        "pool": [[stat.st_size, stat.st_mtime_ns] if stat else None for stat in stats],
    }


def prepare(
    pool: Path, memory_limit: str | None = None, threads: int | None = None, least: int = FROM
) -> bool:
    """Make the index of a pool of at least so many samples, unless it has one that is current.

    Returns whether there is one. Linked pools and folders have none. Raises StorageError where
    it cannot be written.
    """
    if not pool.is_file():
        return False
    _sweep(pool)
    if current(pool):
        return True
    with Pool.open(pool, read_only=True, confined=True, memory_limit=memory_limit,
                   threads=threads) as opened:  # fmt: skip
        if opened.linked or opened.count() < least:
            return False
        say(f"indexing {opened.count():,} samples for browsing, once: {folder_of(pool)}")
        about = _about(pool)
        fill = _sql(opened)
    place = folder_of(pool)
    # A name of its own: another process may be making the same index.
    made = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    with atomic_directory(made) as folder:
        file = folder / "index.duckdb"
        with pool_errors(file), connect(
            file, memory_limit=memory_limit, threads=threads
        ) as connection:  # fmt: skip
            attach(connection, pool, "pool")
            fill(connection)
        with Pool.open(pool, read_only=True, confined=True, memory_limit=memory_limit,
                       threads=threads, beside=file) as opened:  # fmt: skip
            write_json(folder / _DRAWING, draw(opened, SAMPLE).to_dict())
        write_json(folder / "about.json", about)
    with storage_errors(place):
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    return current(pool)


def _sweep(pool: Path) -> None:
    """Remove what processes killed while they made an index have left; it takes them minutes."""
    name = folder_of(pool).name
    left = re.compile(rf"\.{{1,2}}{re.escape(name)}\.[0-9a-f]{{8}}(\.partial)?")
    for path in pool.absolute().parent.glob(f".*{glob.escape(name)}.*"):
        with contextlib.suppress(OSError):
            old = path.stat().st_mtime < time.time() - _ABANDONED
            if left.fullmatch(path.name) and path.is_dir() and old:
                shutil.rmtree(path, ignore_errors=True)


def _sql(pool: Pool) -> Callable[[duckdb.DuckDBPyConnection], None]:
    """Return what fills an index, on a connection that has the pool as ``pool``."""
    columns = pool.columns()
    numbers = [n for n, kind in columns.items() if kind in _NUMBERS and is_column_name(n)]
    values = [f", s.{quote(name)}" for name in numbers[:MAX_NUMBERS]]
    joins, scores = [], []
    for number, (name, table, _) in enumerate(scores_of(pool)):
        joins.append(f"LEFT JOIN pool.{quote(table)} t{number} ON t{number}.uid = s.uid")
        scores.append(f", t{number}.value AS {quote(name)}")
    relation = f"pool.samples s {' '.join(joins)}"
    texts = ", s.text, s.url" * (pool.count() <= TEXTS_UP_TO)
    indexed = (
        "SELECT s.rowid AS _row, lower(s.text) AS _folded, strlen(s.text)::BIGINT AS _caption"
        f"{texts}{''.join(values + scores)} FROM {relation}" + " ORDER BY _row" * bool(joins)
    )
    named = ", ".join(f"s.{quote(name)}" for name in columns_for(pool))
    sampled = (
        f"SELECT {named}{''.join(scores)} FROM {relation} WHERE {a_share_of(pool.count(), 's.uid')}"
    )

    def fill(connection: duckdb.DuckDBPyConnection) -> None:
        # Decompressing texts takes longer than looking through them.
        kinds = ", ".join(
            f"{quote(name)} {kind}{' USING COMPRESSION uncompressed' * (name in _PLAIN)}"
            for name, kind in columns_of(connection, indexed).items()
        )
        connection.execute(f"CREATE TABLE {SAMPLES} ({kinds})")
        connection.execute(f"INSERT INTO {SAMPLES} {indexed}")
        connection.execute(f"CREATE TABLE {DRAWN} AS {sampled}")

    return fill
