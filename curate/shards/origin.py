"""Where the samples of a build come from: folders of tars, or a pool.

An *origin* finds uids and cuts the work into *slices*: what a worker needs to know to read the
samples of one output shard, small enough to send to it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...durable import canonical_json
from ...errors import DataError, IntegrityError, MissingError, UsageError
from ...pools import tar
from ...pools.engine import Workers
from ...pools.images import probe
from ...pools.ranges import OpenFiles, Stamp, is_remote
from ...pools.schema import CORE_COLUMNS, TRUTH
from ...pools.uids import UidArray, to_hex
from ...pools.view_copying import Rows, copies
from ...pools.views import read_samples, write_sample
from .index import ensure_index
from .missing import Missing
from .order import MAX_ORDERED, order_samples
from .ordered import Records, uids_of
from .selection import NO_IMAGE, NOT_IN_SOURCE, UNREADABLE, Reasons, Selection, choose
from .wanted import Wanted

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pools.pool import Pool
    from .output import OutputFile

IMAGE_CHANGED = "image_changed"
PLAN_BATCH = 100_000
EXTENSIONS = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip

Members = list[tuple[str, bytes | memoryview]]
"""Extension and bytes of the members of one sample, in alphabetical order."""


@dataclass(frozen=True)
class Unusable:
    """Stands in place of the members of a sample that turns out to be none: why, and the error."""

    reason: str
    error: DataError


class Slice(ABC):
    """The samples of one output shard, in order; travels to a worker."""

    @abstractmethod
    def samples(self) -> Iterator[tuple[str, Members | Unusable]]:
        """Read the samples: key and members of each."""


class Origin(ABC):
    """A place whose samples can be found by uid."""

    kind: str
    digest: str
    """The name of what was found: it changes when the samples change."""

    set_aside: Mapping[str, int] = MappingProxyType({})
    """How many of its samples and tars were set aside before, by reason."""

    changed = 0
    """When a file of it changed last, in ns since 1970; 0 where that is not known."""

    weighed_out = 0
    """How many uids weights left without a repetition."""

    @abstractmethod
    def find(self, wanted: Wanted) -> tuple[int, Missing]:
        """Find the samples wanted; called before the others, and again for other samples.

        Returns how many there are, repetitions counted, and what is missing.
        """

    @abstractmethod
    def uids(self, first: int, last: int) -> UidArray:
        """Return the uids of the places [first, last) of the output."""

    @abstractmethod
    def slices(self, parts: Sequence[tuple[int, int]]) -> Iterator[Slice]:
        """Yield a slice for each part [first, last) of the output."""

    @abstractmethod
    def places(self) -> list[Path]:
        """Return the folders and files that workers read."""

    def stores(self) -> list[str]:
        """Return the places elsewhere that workers read."""
        return []

    def close(self) -> None:  # noqa: B027
        """Let go of what the origin holds open."""


# -- folders of tars -------------------------------------------------------------------------


@dataclass(frozen=True)
class TarSlice(Slice):
    """Records of samples that point into a few tars."""

    files: list[Stamp]
    raw: bytes

    def samples(self) -> Iterator[tuple[str, Members | Unusable]]:
        """Read each range and take its members apart."""
        for sample in read_samples(self.files, self.raw):
            members = sorted(sample.found.members)
            yield sample.key, [(extension, sample.member(extension)) for extension in members]

    def copy(self, file: OutputFile) -> int:
        """Write all samples, as they are, into a tar; return how many."""
        writer, count = tar.TarWriter(file), 0
        for found in copies(self.files, self.raw):
            if isinstance(found, Rows):
                file.write_rows(found.blocks, found.order)
                count += found.samples
            else:
                write_sample(writer, found)
                count += 1
        return count


class TarOrigin(Origin):
    """Folders of tars with an index each."""

    kind = "shards"

    def __init__(
        self, sources: Sequence[Path], workers: Workers, keep_going: bool, folder: Path
    ) -> None:
        """What memory does not hold lies in ``folder``."""
        self._folder = folder
        self._indexes = [ensure_index(source, workers, keep_going) for source in sources]
        self._chosen: Selection | None = None
        local = (index for index in self._indexes if not is_remote(index.root))
        times = (stamp.version for index in local for stamp in index.stamps)
        self.changed = max((int(time) for time in times if time.isdecimal()), default=0)
        self.digest = "".join(index.sha256 for index in self._indexes)
        if len(self._indexes) > 1:
            self.digest = hashlib.sha256(self.digest.encode()).hexdigest()

    def find(self, wanted: Wanted) -> tuple[int, Missing]:
        """Look the uids up in the indexes."""
        self._chosen = None  # whose memory is needed
        self._chosen = choose(self._indexes, wanted, self._folder)
        self.set_aside, self.weighed_out = self._chosen.set_aside, self._chosen.weighed_out
        return len(self._chosen), self._chosen.missing

    def places(self) -> list[Path]:
        """Return the folders of the tars that lie on a file system."""
        return [Path(index.root) for index in self._indexes if not is_remote(index.root)]

    def stores(self) -> list[str]:
        """Return the places of the tars that lie elsewhere."""
        return [index.root for index in self._indexes if is_remote(index.root)]

    def uids(self, first: int, last: int) -> UidArray:
        """Return the uids of some places."""
        assert self._chosen is not None
        return uids_of(self._chosen.records(first, last))

    def slices(self, parts: Sequence[tuple[int, int]]) -> Iterator[Slice]:
        """Cut the records into slices, each with the tars it needs."""
        assert self._chosen is not None
        for first, last in parts:
            records: Records = self._chosen.records(first, last)
            numbers, file = np.unique(records["file"], return_inverse=True)
            records["file"] = file
            yield TarSlice([self._chosen.files[number] for number in numbers], records.tobytes())


# -- a pool ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoolSlice(Slice):
    """Rows of a pool: uid, copy and label beside the columns and the root of its image."""

    rows: pa.Table

    def samples(self) -> Iterator[tuple[str, Members | Unusable]]:
        """Read each image as it lies and write its caption and metadata anew."""
        with OpenFiles() as opened:
            for row in self.rows.to_pylist():
                try:
                    found = _members(row, opened)
                except IntegrityError as error:
                    found = Unusable(IMAGE_CHANGED, error)
                except DataError as error:
                    found = Unusable(UNREADABLE, error)
                yield f"{row['uid']}-{row['copy']}", found


def _members(row: dict[str, Any], opened: OpenFiles) -> Members:
    from ...pools.reading import locate

    path = str(locate(Path(row["root"]), row["shard"]))
    image = opened.read(path, row["offset"], row["length"])
    recorded = row["sha256"]
    if recorded and hashlib.sha256(image).hexdigest() != recorded:
        raise IntegrityError(
            f"{path}: the image of sample {row['uid']} is not the one that was added "
            "to the pool (SHA-256 differs); restore it or make the pool again"
        )
    members = [
        (EXTENSIONS[probe(image).format], image),
        ("json", _sample_json(row)),
        ("txt", (row["text"] or "").encode()),
    ]
    if row["label"] is not None:
        members.append(("cls", str(row["label"]).encode()))
    return sorted(members)


class PoolOrigin(Origin):
    """A pool whose samples have their images at hand."""

    kind = "pool"

    def __init__(self, pool: Pool, folder: Path) -> None:
        self._pool, self._folder = pool, folder
        self._roots = pool.source_paths()

    def find(self, wanted: Wanted) -> tuple[int, Missing]:
        """Look the uids up in the pool, and their images in the file system."""
        import pyarrow as pa

        if wanted.weights is not None or wanted.mix:
            raise UsageError(f"{self._pool.path}: weights are for folders of tars, not for a pool")
        if wanted.selected > MAX_ORDERED:
            raise UsageError(
                f"{wanted.subset}: {wanted.selected:,} samples are too many for a build from a "
                "pool; build from the folder of its tars"
            )
        uids, counts = wanted.everything()
        table = pa.table({"high": uids["f0"], "low": uids["f1"], "place": np.arange(len(uids))})
        self._register("build_wanted_uids", table)
        self._pool.sql(
            "CREATE OR REPLACE TEMP TABLE build_wanted AS SELECT place, "
            "(high::UHUGEINT << 64) + low::UHUGEINT AS uid FROM build_wanted_uids"
        )
        self._register("build_files", self._files())
        found = self._pool.table(
            "SELECT w.place, s.uid IS NOT NULL AS known, s.shard IS NOT NULL AS located, "
            's."offset" >= 0 AND s.length >= 0 AND s."offset" + s.length <= f.size AS readable '
            "FROM build_wanted w LEFT JOIN samples s USING (uid) LEFT JOIN build_files f "
            "ON s.source = f.source AND s.shard = f.shard ORDER BY w.place"
        )
        known, located, readable = (
            found[name].fill_null(False).to_numpy().astype(bool)
            for name in ("known", "located", "readable")
        )
        self.digest = self._content_digest()
        reasons = {
            NOT_IN_SOURCE: ~known,
            NO_IMAGE: known & ~located,
            UNREADABLE: located & ~readable,
        }
        missing = Reasons(wanted, self._folder)
        missing.add(uids, reasons)
        missing.refuse(str(self._pool.path))
        counts = np.where(known & located & readable, counts, 0)
        self._uids = uids
        self._order, self._copy = order_samples(uids, counts, wanted.shuffle)
        return len(self._order), missing.found

    def places(self) -> list[Path]:
        """Return the roots of the images."""
        return list(self._roots.values())

    def uids(self, first: int, last: int) -> UidArray:
        """Return the uids of some places."""
        return self._uids[self._order[first:last]]

    def slices(self, parts: Sequence[tuple[int, int]]) -> Iterator[Slice]:
        """Stream the rows in the order of the output and cut them into slices."""
        import pyarrow as pa

        if not parts:
            return
        rank = np.concatenate([np.arange(first, last) for first, last in parts])
        table = pa.table({"rank": rank, "place": self._order[rank], "copy": self._copy[rank]})
        self._register("build_output", table)
        reader = self._pool.connection.sql(
            "SELECT o.place, o.copy, s.url, s.text, s.width, s.height, s.sha256, s.source, "
            f"{self._label()} AS label, {self._own()} AS own, "
            's.shard, s."offset", s.length FROM build_output o JOIN build_wanted w USING (place) '
            "JOIN samples s USING (uid) ORDER BY o.rank"
        ).to_arrow_reader(PLAN_BATCH)
        waiting = reader.schema.empty_table()
        for first, last in parts:
            while len(waiting) < last - first:
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([next(reader)])])
            yield PoolSlice(self._prepared(waiting.slice(0, last - first)))
            waiting = waiting.slice(last - first)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()

    def _label(self) -> str:
        """Return the SQL of a sample's class label: the column ``class``, if it holds numbers."""
        kind = self._pool.columns().get("class", "")
        return 's."class"' if kind in ("BIGINT", "INTEGER", "SMALLINT", "TINYINT") else "NULL"

    def _own(self) -> str:
        """Return the SQL of what the source knew besides, as JSON, nulls included.

        Whatever truth was planted stays in the pool.
        """
        from ...pools.columns import literal, quote

        names = [one for one in self._pool.columns() if one not in (*CORE_COLUMNS, TRUTH)]
        pairs = ", ".join(f"{literal(name)}: s.{quote(name)}" for name in names)
        return f"to_json({{{pairs}}})::VARCHAR" if pairs else "NULL::VARCHAR"

    def _register(self, name: str, table: pa.Table) -> None:
        self._pool.connection.register(name, table)

    def _files(self) -> pa.Table:
        """Return (source, shard, size) of every file that holds wanted images."""
        import pyarrow as pa

        rows = self._pool.sql(
            "SELECT DISTINCT source, shard FROM samples SEMI JOIN build_wanted USING (uid) "
            "WHERE shard IS NOT NULL"
        ).fetchall()
        sizes = [_size(self._roots.get(source), shard) for source, shard in rows]
        return pa.table(
            {
                "source": pa.array([row[0] for row in rows], pa.int32()),
                "shard": pa.array([row[1] for row in rows], pa.string()),
                "size": pa.array(sizes, pa.int64()),
            }
        )

    def _content_digest(self) -> str:
        columns = ("uid", "url", "text", "width", "height", "sha256", "shard", "offset", "length")
        values = ", ".join(f"coalesce(s.\"{name}\"::VARCHAR, '-')" for name in columns)
        values += f", coalesce({self._label()}::VARCHAR, '-'), coalesce({self._own()}, '-')"
        rows = self._pool.sql(
            f"SELECT count(*), bit_xor(md5_number(md5(concat_ws(chr(31), {values})))) "
            "FROM samples s SEMI JOIN build_wanted USING (uid)"
        ).fetchall()
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def _prepared(self, rows: pa.Table) -> pa.Table:
        """Put uid and root where place and source stood; copy, so that only this slice travels."""
        import pyarrow as pa

        uids = to_hex(self._uids[rows["place"].to_numpy()])
        roots = [str(self._roots[source]) for source in rows["source"].to_pylist()]
        rows = rows.drop_columns(["place", "source"])
        rows = rows.append_column("uid", pa.array(uids, pa.string()))
        rows = rows.append_column("root", pa.array(roots, pa.string()).dictionary_encode())
        return rows.take(np.arange(len(rows)))


def _size(root: Path | None, shard: str) -> int | None:
    from ...pools.reading import locate

    if root is None:
        return None
    try:
        return locate(root, shard).stat().st_size
    except (OSError, DataError):
        return None


def _sample_json(row: dict[str, Any]) -> bytes:
    own = json.loads(row["own"] or "{}", parse_constant=lambda _: None)
    values = {name: value for name, value in own.items() if value is not None}
    values |= {"uid": row["uid"], "url": row["url"], "caption": row["text"]}
    values |= {name: row[name] for name in ("width", "height", "sha256")}
    return canonical_json(values)


# -- either ----------------------------------------------------------------------------------


def open_origin(
    sources: Sequence[Path], workers: Workers, keep_going: bool, folder: Path
) -> Origin:
    """Return the origin of some folders of tars (indexed first if need be), or of a pool.

    What memory does not hold lies in ``folder``.
    """
    for source in sources:
        if not source.exists():
            raise MissingError(f"{source}: no such folder of tars and no such pool")
    if all(source.is_dir() for source in sources):
        return TarOrigin(sources, workers, keep_going, folder)
    if len(sources) > 1:
        raise UsageError("several sources must all be folders of tars")
    from ...pools.pool import Pool

    return PoolOrigin(Pool.open(sources[0], read_only=True), folder)
