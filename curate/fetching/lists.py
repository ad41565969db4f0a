"""What is to be fetched, cut into shards: one Arrow file each in ``OUT/.pending``.

Lists are laid down all at once and stay until what became of them is in the pool, so that after
any interruption the same samples go into the same shards. A shard whose stats are there is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import atomic_directory, partial_path, read_json, write_json
from ...errors import DataError, UsageError
from ...pools import fetches
from ...pools.columns import quote
from ...pools.pool import Pool, pool_errors
from ...pools.subset_files import SubsetFile
from ...pools.uids import UidArray, load_subset
from .job import PENDING, STOP, FetchOptions, Row
from .outcome_files import Metadata
from .outcomes import outcomes_of
from .reasons import retry_pattern
from .writer import NAME, stats_of

if TYPE_CHECKING:
    import pyarrow as pa

REQUEST, PARTS = "request.json", "parts.json"
_LIMIT = 1 << 16, 1 << 26
FLAGS = {"verify": "--verify", "per_shard": "--shard-size", "min_size": "--min-size"}
"""What the lists of one request are fetched with alike: which images there are, and their keys.

``FetchOptions.lasting`` stays for all shards of a folder; the rest is how to get at images.
"""
_ROWS = 1 << 14


@dataclass(frozen=True)
class Request:
    """What was asked for: which failures to retry, of which subset, made with what (FLAGS)."""

    retry: tuple[str, ...]
    subset: str | None
    made_with: dict[str, Any]

    @classmethod
    def of(cls, options: FetchOptions) -> Request:
        """Return what some options ask for."""
        subset = None if options.subset is None else SubsetFile.of(options.subset).verify()
        made_with = {name: getattr(options, name) for name in FLAGS}
        return cls(tuple(sorted(options.retry)), subset, made_with)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"retry": list(self.retry), "subset": self.subset, **self.made_with}

    def other_than(self, asked: dict[str, Any]) -> str | None:
        """Return the options, as flags, with which another request's lists are to be finished."""
        others = [name for name, mine in self.made_with.items() if asked.get(name, mine) != mine]
        words = [
            f"without {FLAGS[name]}" if asked[name] is None else f"with {FLAGS[name]} {asked[name]}"
            for name in others
        ]
        return " and ".join(words) or None


@dataclass(frozen=True)
class Part:
    """A file of metadata and its lists, numbered from ``first`` to before ``end``."""

    name: str
    first: int
    end: int
    metadata: Metadata

    @classmethod
    def from_dict(cls, found: Any) -> Part:
        """Return what JSON says; raise ValueError where it has another form."""
        match found:
            case {"name": str(name), "first": int(first), "end": int(end), "metadata": metadata}:
                return cls(name, first, end, Metadata.from_dict(metadata))
            case _:
                raise ValueError("no lists of a file of metadata")


class Lists:
    """The lists of a folder of shards."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / PENDING

    def rows(self) -> list[Row]:
        """Return the lists that are there, in order."""
        found = sorted(self.folder.glob("[0-9]*.arrow"))
        return [(int(path.stem), str(path)) for path in found]

    def finished(self) -> list[Row]:
        """Return the lists whose shards are whole."""
        return [row for row in self.rows() if stats_of(self.out, row[0]).exists()]

    def columns(self) -> tuple[str, ...]:
        """Return the columns of the lists that are there."""
        import pyarrow as pa

        with pa.OSFile(self.rows()[0][1]) as file:
            return tuple(pa.ipc.open_file(file).schema.names)

    def counts(self) -> dict[int, int]:
        """Return how many URLs each list has."""
        import pyarrow as pa

        found: dict[int, int] = {}
        for number, path in self.rows():
            with pa.OSFile(path) as file:
                reader = pa.ipc.open_file(file)
                found[number] = sum(
                    reader.get_batch(i).num_rows for i in range(reader.num_record_batches)
                )
        return found

    def progress(self, number: int) -> int:
        """Return how far the worker of a list says it is."""
        try:
            return int((self.folder / f"{NAME.format(number)}.count").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def request(self) -> dict[str, Any] | None:
        """Return what the lists were laid down for, None without lists."""
        path = self.folder / REQUEST
        if not path.exists() and not self.rows():
            return None
        found = read_json(path, _LIMIT[0])
        if not isinstance(found, dict):
            raise DataError(f"{path}: damaged; choose another folder")
        return found

    def remove(self, row: Row) -> None:
        """Forget a list whose outcomes are in the pool."""
        Path(row[1]).unlink(missing_ok=True)
        (self.folder / f"{NAME.format(row[0])}.error").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder of lists, when none is left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def let_go(self) -> None:
        """Forget that workers were told to stop."""
        (self.folder / STOP).unlink(missing_ok=True)

    def stop(self) -> None:
        """Tell the workers to stop."""
        if self.folder.is_dir():
            (self.folder / STOP).touch()

    # -- laying down ------------------------------------------------------------------------

    def lay_down(self, pool: Pool, options: FetchOptions, request: Request) -> int:
        """Write the lists of what of a pool is to be fetched; return how many URLs that is."""
        subset = None if options.subset is None else load_subset(options.subset)
        try:
            count = plan(pool, options, subset)
            if count:
                with self.laying_down(request) as partial:
                    write_lists(pool, options, partial, self.next_number())
                fetches.expect(pool, "planned", bool(options.retry))
        finally:
            pool.sql("DROP TABLE IF EXISTS temp.planned")
        return count

    @contextlib.contextmanager
    def laying_down(self, request: Request) -> Iterator[Path]:
        """Yield a folder for lists, which are there all at once in the end."""
        with atomic_directory(self.folder) as partial:
            yield partial
            write_json(partial / REQUEST, request.to_dict())

    def next_number(self) -> int:
        """Return the number of the first shard that is not there."""
        numbers = [
            int(re.split(r"\D", name)[0])
            for name in os.listdir(self.out)
            if re.fullmatch(r"\d{1,12}(\.tar|\.parquet|_stats\.json)", name)
        ]
        return max(numbers, default=-1) + 1

    def take(self, partial: Path, made: Path, first: int) -> int:
        """Take lists that were written elsewhere as those from number ``first``; return the end."""
        for path in sorted(made.glob("[0-9]*.arrow")):
            path.rename(partial / f"{NAME.format(first)}.arrow")
            first += 1
        return first

    def write_parts(self, partial: Path, parts: list[Part]) -> None:
        """Write down whose lists these are."""
        write_json(partial / PARTS, [asdict(part) for part in parts])

    def parts(self) -> list[Part]:
        """Return the files of metadata whose lists these are; raise DataError where nobody says."""
        path = self.folder / PARTS
        if not path.exists() and not self.rows():
            return []
        try:
            return [Part.from_dict(part) for part in read_json(path, _LIMIT[1])]
        except (TypeError, ValueError):
            raise DataError(f"{path}: damaged; choose another folder") from None

    # -- what became of them ----------------------------------------------------------------

    def outcomes(self, row: Row) -> tuple[pa.Table, datetime]:
        """Return what became of each URL of a finished shard, and when that was known."""
        return outcomes_of(self.out, NAME.format(row[0]))


def check_verify(pool: Pool, options: FetchOptions) -> None:
    """Raise UsageError where there is nothing to compare images with, as ``verify`` asks."""
    if options.verify and not pool.scalar("SELECT 1 FROM samples WHERE sha256 IS NOT NULL LIMIT 1"):
        raise UsageError(f"{pool.path}: records no sha256 to compare with; leave out --verify")


def plan(pool: Pool, options: FetchOptions, subset: UidArray | None) -> int:
    """Fill the temporary table ``planned`` with the uids to fetch, and the place of each.

    ``subset`` (n,) are those of which some may be; return how many are.

    The order is one of hashes: neighbours are rarely of the same host, and it is the same for
    the same samples.
    """
    wanted = "true"
    if subset is not None:
        import pyarrow as pa

        halves = pa.table({"high": subset["f0"], "low": subset["f1"]})
        with pool.registered("subset_arrow", halves):
            pool.sql(
                "CREATE OR REPLACE TEMP TABLE subset AS SELECT DISTINCT "
                "(high::UHUGEINT << 64) + low::UHUGEINT AS uid FROM subset_arrow"
            )
        wanted = "samples.uid IN (SELECT uid FROM temp.subset)"
    if options.retry:
        pattern = retry_pattern(options.retry)
        state = f"fetches.state = '{fetches.FAILED}' AND regexp_full_match(reason, $1)"
        parameters = [pattern]
    else:
        state, parameters = (
            f"coalesce(fetches.state, '{fetches.PENDING}') = '{fetches.PENDING}'",
            [],
        )
    if options.verify:
        wanted += " AND samples.sha256 IS NOT NULL"
    pool.sql(
        "CREATE OR REPLACE TEMP TABLE planned AS SELECT DISTINCT samples.uid, "
        "md5_number_lower(printf('%032x', samples.uid)) AS place "
        f"FROM {fetches.WITH_FETCHES} WHERE coalesce(url, '') <> '' AND samples.shard IS NULL "
        f"AND {state} AND {wanted}", parameters,
    )  # fmt: skip
    pool.sql("DROP TABLE IF EXISTS temp.subset")
    return pool.scalar("SELECT count(*) FROM planned")


def write_lists(pool: Pool, options: FetchOptions, into: Path, first: int = 0) -> None:
    """Write what is planned into a folder, a list for each shard, numbered from ``first``."""
    for number, table in enumerate(_shards(pool, options), first):
        _write(into / f"{NAME.format(number)}.arrow", table)


def list_columns(pool: Pool, options: FetchOptions) -> dict[str, str]:
    """Return the columns of a list, each with the SQL that gives it, as img2dataset wants them."""
    columns = {"uid": "printf('%032x', samples.uid)"}
    if options.boxes is not None and options.boxes in pool.columns():
        columns[options.boxes] = f"TRY_CAST({quote(options.boxes)} AS DOUBLE[][])"
    columns["caption"] = "coalesce(text, '')"
    if options.verify:
        columns["sha256"] = "lower(samples.sha256)"
    return {**columns, "url": "url"}


def _shards(pool: Pool, options: FetchOptions) -> Iterator[pa.Table]:
    """Yield the rows of ``planned``, cut into shards."""
    import pyarrow as pa

    selected = ", ".join(
        f"{sql} AS {quote(name)}" for name, sql in list_columns(pool, options).items()
    )
    once = ""
    if pool.linked:  # whose uids nobody has checked
        first = "PARTITION BY samples.uid ORDER BY metadata_file, metadata_row"
        once = f"QUALIFY row_number() OVER ({first}) = 1"
    waiting: list[pa.RecordBatch] = []
    with pool_errors(pool.path):
        rows = pool.connection.sql(
            f"SELECT {selected} FROM samples JOIN planned USING (uid) {once} "
            "ORDER BY place, samples.uid"
        ).to_arrow_reader(_ROWS)
        for batch in rows:
            waiting.append(batch)
            while sum(map(len, waiting)) >= options.per_shard:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, options.per_shard)
                waiting = table.slice(options.per_shard).to_batches()
    if any(map(len, waiting)):
        yield pa.Table.from_batches(waiting)


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    partial = partial_path(path)  # two workers may be at the same list
    with (
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    partial.replace(path)
