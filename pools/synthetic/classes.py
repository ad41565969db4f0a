"""The classes of a set on disk: ``classes.parquet`` for people, ``.states`` for generators.

Finding classes may take long, so what is found is kept group by group in ``.classes`` until
all groups are there. States may be large: they go from the generator to the disk one by one.
The table records their digest, so that a set without its ``.states``, or with others, is never
drawn from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import atomic_path, sha256_file, storage_errors
from ...errors import DataError, IntegrityError, MissingError
from ...progress import Progress
from ..processes import map_ordered
from .contract import ClassRecord, Generator

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "classes.parquet"
_STATES = ".states"
_PARTS = ".classes"
_NOT_PARAMETERS = ("class", "caption")
_DIGEST = b"states_sha256"
"""Where the table's metadata hold the digest of the file of states; no states, no entry."""
_PIECE = 1 << 20


def find_classes(generator: Generator, out: Path, workers: int) -> None:
    """Find the classes of a set and write them to ``out``; what is there already is kept."""
    if (out / TABLE).exists():
        return
    groups = generator.groups()
    tasks = [(generator, out, number) for number in range(len(groups))]
    missing = [task for task in tasks if not all(part.exists() for part in _parts(out, task[2]))]
    with Progress("finding classes", generator.classes, "classes") as progress:
        progress.advance(generator.classes - sum(len(groups[number]) for *_, number in missing))
        for found in map_ordered(_find_group, missing, workers):
            progress.advance(found)
    _join(out, len(groups))


def _parts(out: Path, number: int) -> tuple[Path, Path]:
    """Return where a group's rows and states lie until all groups are there."""
    stem = out / _PARTS / f"{number:05d}"
    return stem.with_suffix(".parquet"), stem.with_suffix(".states")


def _find_group(task: tuple[Generator, Path, int]) -> int:
    """Find one group's classes and write them; return how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator, out, number = task
    rows: list[dict[str, Any]] = []
    table, states = _parts(out, number)
    with atomic_path(states) as partial, partial.open("wb") as file:
        for one in generator.find(generator.groups()[number]):
            rows.append(
                {"class": one.class_id, "caption": generator.caption(one), **one.parameters}
            )
            file.write(one.state)
    with atomic_path(table) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial)
    return len(rows)


def _join(out: Path, parts: int) -> None:
    """Join the parts into the file of states and the table, in this order, and remove them."""
    import pyarrow.parquet as pq

    found = _join_states(out, parts)
    with atomic_path(out / TABLE) as table:
        schema = _read(_parts(out, 0)[0]).schema.with_metadata({_DIGEST: found} if found else None)
        with pq.ParquetWriter(table, schema) as writer:
            for number in range(parts):
                writer.write_table(_read(_parts(out, number)[0]).cast(schema))
    with storage_errors(out):
        shutil.rmtree(out / _PARTS, ignore_errors=True)


def _join_states(out: Path, parts: int) -> str | None:
    """Write the file of states; return its digest, or None, and no file, where there are none."""
    paths = [_parts(out, number)[1] for number in range(parts)]
    if not any(path.stat().st_size for path in paths):
        return None
    sha = hashlib.sha256()
    with atomic_path(out / _STATES) as states, states.open("wb") as file:
        for path in paths:
            with path.open("rb") as part:
                while piece := part.read(_PIECE):
                    sha.update(piece)
                    file.write(piece)
    return sha.hexdigest()


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: not a table of classes: {said}") from None


@dataclass(frozen=True)
class ClassTable:
    """The classes of a set in ``folder``, read when they are needed."""

    folder: Path
    start_class: int

    @cached_property
    def _table(self) -> pa.Table:
        return _read(self.folder / TABLE)

    @cached_property
    def _step(self) -> int:
        """The bytes of a class's state, once the file is known to be the one of the table."""
        recorded = (self._table.schema.metadata or {}).get(_DIGEST)
        path = self.folder / _STATES
        if recorded is None and not (path.is_file() and path.stat().st_size):
            return 0
        remedy = f"remove {self.folder / TABLE} and run the same 'datacomp synth' command again"
        if not path.is_file():
            raise MissingError(f"{path}: missing; copy it along with the set, or {remedy}")
        if sha256_file(path).encode() != recorded:
            raise IntegrityError(f"{path}: not what was written with the classes; {remedy}")
        return path.stat().st_size // max(1, self._table.num_rows)

    def records(self, first: int, last: int) -> Iterator[ClassRecord]:
        """Yield the records of the classes numbered [first, last).

        Raises DataError for a broken table, and MissingError or IntegrityError where the states
        that belong to it are not there.
        """
        rows: list[dict[str, Any]] = self._table.slice(
            first - self.start_class, last - first
        ).to_pylist()
        if [row.get("class") for row in rows] != [*range(first, last)]:
            raise DataError(
                f"{self.folder / TABLE}: does not hold the classes {first} to {last - 1}; ask for "
                "those it holds, or remove it and run the same 'datacomp synth' command again"
            )
        for row in rows:
            parameters = {n: v for n, v in row.items() if n not in _NOT_PARAMETERS}
            yield ClassRecord(row["class"], parameters, self._state(row["class"]))

    def _state(self, class_id: int) -> bytes:
        if self._step == 0:
            return b""
        with (self.folder / _STATES).open("rb") as file:
            file.seek((class_id - self.start_class) * self._step)
            return file.read(self._step)
