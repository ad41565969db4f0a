"""Where a pool's features lie: beside its metadata, or where ``pool embed`` put them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import MissingError
from .columns import literal
from .pool import Pool
from .reading import locate
from .sources.commonpool import FILE, ROW


def features_folder(pool: Path) -> Path:
    """Return the folder of all features that were computed on the pool at a path."""
    return pool.with_name(pool.name + ".features")


class Places(Protocol):
    """Which row of which file holds each sample's features."""

    listing: str
    """SELECT of uid, source, file and row of every sample that may have some."""

    def locate(self, source: int, file: str) -> Path:
        """Return a file of metadata; its features lie beside it."""
        ...


class Published:
    """Features that came with metadata, an ``.npz`` beside each parquet file."""

    listing = (
        f"SELECT uid, source, {FILE} AS file, {ROW} AS row FROM samples WHERE {FILE} IS NOT NULL"
    )

    def __init__(self, pool: Pool) -> None:
        columns = pool.columns()
        if FILE not in columns or ROW not in columns:
            raise MissingError(
                f"{pool.path}: the pool does not know where its samples' features are; add "
                "DataComp's metadata with --kind commonpool, or compute features with "
                "'datacomp pool embed'"
            )
        self._roots = pool.source_paths()

    def locate(self, source: int, file: str) -> Path:
        """Return a file of metadata below its source's folder."""
        return locate(self._roots[source], file)


class Computed:
    """Features that ``pool embed`` wrote, in parts of one folder."""

    def __init__(self, folder: Path, rows: str) -> None:
        self._folder = folder
        self.listing = (
            "SELECT uid, 0 AS source, printf('%08d.parquet', part) AS file, row "
            f"FROM {rows} WHERE row IS NOT NULL"
        )

    def locate(self, source: int, file: str) -> Path:
        """Return the parquet file of a part."""
        path = self._folder / file
        if not path.is_file():
            raise MissingError(f"{path}: no such file of features")
        return path


def places_of(pool: Pool, name: str) -> Places:
    """Return where the features of a name lie; raise MissingError where they cannot."""
    found = pool.row(f"SELECT file, rows_table FROM features WHERE name = {literal(name)}")
    if found is None:
        return Published(pool)
    return Computed(pool.path.parent / found[0], found[1])


def computed_names(pool: Pool) -> list[str]:
    """Return the names of the features that ``pool embed`` wrote."""
    return [name for (name,) in pool.sql("SELECT name FROM features ORDER BY name").fetchall()]
