"""The classes of a set on disk: ``classes.parquet`` for people, ``.states`` for generators.

Finding classes may take long, so what is found is kept group by group in ``.classes`` until
all groups are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import atomic_path, storage_errors
from ...errors import DataError
from ...progress import Progress
from ..parallel import map_ordered
from .contract import ClassRecord, Generator

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "classes.parquet"
_STATES = ".states"
_PARTS = ".classes"
_NOT_PARAMETERS = ("class", "caption")


def find_classes(generator: Generator, out: Path, workers: int) -> None:
    """Find the classes of a set and write them to ``out``; what is there already is kept."""
    if (out / TABLE).exists():
        return
    groups = generator.groups()
    tasks = [(generator, out, number) for number in range(len(groups))]
    missing = [task for task in tasks if not _part(out, task[2]).exists()]
    with Progress("finding classes", generator.classes, "classes") as progress:
        progress.advance(generator.classes - sum(len(groups[number]) for *_, number in missing))
        for found in map_ordered(_find_group, missing, workers):
            progress.advance(found)
    _join(out, len(groups))


def _part(out: Path, number: int) -> Path:
    return out / _PARTS / f"{number:05d}.parquet"


def _find_group(task: tuple[Generator, Path, int]) -> int:
    """Find one group's classes and write them; return how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator, out, number = task
    records = list(generator.find(generator.groups()[number]))
    rows = [
        {"class": one.class_id, "caption": generator.caption(one), **one.parameters,
         _STATES: one.state}
        for one in records
    ]  # fmt: skip
    with atomic_path(_part(out, number)) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial)
    return len(records)


def _join(out: Path, parts: int) -> None:
    """Join the parts into the table and the file of states, and remove them."""
    import pyarrow.parquet as pq

    with atomic_path(out / _STATES) as states, atomic_path(out / TABLE) as table:
        writer: pq.ParquetWriter | None = None
        with states.open("wb") as file:
            for number in range(parts):
                part = pq.read_table(_part(out, number))
                for state in part[_STATES]:
                    file.write(state.as_py())
                part = part.drop_columns([_STATES])
                writer = writer or pq.ParquetWriter(table, part.schema)
                writer.write_table(part.cast(writer.schema))
        if writer is not None:
            writer.close()
    with storage_errors(out):
        shutil.rmtree(out / _PARTS, ignore_errors=True)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a set in ``folder``, read when they are needed."""

    folder: Path
    start_class: int

    @cached_property
    def _table(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / TABLE
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            said = (str(error).splitlines() or [""])[0]
            raise DataError(f"{path}: not a table of classes: {said}") from None

    def records(self, first: int, last: int) -> Iterator[ClassRecord]:
        """Yield the records of the classes numbered [first, last)."""
        rows: list[dict[str, Any]] = self._table.slice(
            first - self.start_class, last - first
        ).to_pylist()
        path = self.folder / _STATES
        step = path.stat().st_size // max(1, self._table.num_rows)
        with path.open("rb") as file:
            for row in rows:
                file.seek((row["class"] - self.start_class) * step)
                parameters = {n: v for n, v in row.items() if n not in _NOT_PARAMETERS}
                yield ClassRecord(row["class"], parameters, file.read(step))
