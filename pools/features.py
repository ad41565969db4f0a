"""Features of a pool's samples: arrays in an ``.npz`` beside each file of metadata.

Row i of an array belongs to row i of the parquet file of the same name. ``numpy.savez`` stores
the arrays as they are, so rows are read from a mapping of the file; a compressed array is read
as a stream. Only the rows that are asked for are ever in memory, and nothing is unpickled.

    features = Features(pool, "l14_img")
    for uids, vectors in features.batches("SELECT uid FROM samples WHERE width > 500"):
        ...  # uids (n,), vectors (n, 768) of float16

Those that ``pool embed`` computed are read the same way: it writes its parts in this layout.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatacompError, DataError, MissingError
from .feature_places import places_of
from .pool import HALVES, Pool
from .reading import locate
from .sources import source_class
from .sources.base import LinkableSource, SetAside
from .uids import UidArray, from_halves, npy_header

File = tuple[int, str]
"""A file of metadata beside which features lie: number of its source, path below it."""
Located = tuple[File, NDArray[np.int64], UidArray, NDArray[np.floating[Any]]]
"""A batch of features: their file, their rows there, uids, vectors."""

_CHUNK = 1 << 20
"""How many rows of the list of samples are held in memory at a time."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_numbers = itertools.count()


class FeatureArray:
    """One array of an ``.npz``, shape (rows, dimension), read row by row.

    Raises DataError for a file that is damaged, and for what is no two-dimensional array of
    floating-point numbers.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._stream: IO[bytes] | None = None
        self._stack = contextlib.ExitStack()
        try:
            self._open(f"{name}.npy")
        except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, struct.error) as why:
            self.close()
            raise DataError(f"{path}: {name} cannot be read: {_first_line(why)}") from None
        except NotImplementedError:
            self.close()
            raise DataError(f"{path}: {name} is compressed in an unknown way") from None
        except BaseException:
            self.close()
            raise

    def _open(self, member: str) -> None:
        archive = self._stack.enter_context(zipfile.ZipFile(self.path))
        names = archive.namelist()
        if member not in names:
            raise MissingError(
                f"{self.path}: no features {self.name!r}; there are: "
                f"{', '.join(n.removesuffix('.npy') for n in names[:20]) or 'none'}"
            )
        info = archive.getinfo(member)
        if info.flag_bits & 1:
            raise ValueError("it is encrypted")
        stream = self._stack.enter_context(archive.open(info))
        shape, fortran, self.dtype, start = npy_header(stream)  # pyright: ignore[reportArgumentType]
        if len(shape) != 2 or fortran or self.dtype.kind != "f":
            raise ValueError(f"an array of {self.dtype}, shape {shape}, not rows of numbers")
        self.rows, self.dimension = shape
        if info.file_size != start + self.rows * self.dimension * self.dtype.itemsize:
            raise ValueError(f"{info.file_size:,} bytes, which is not its shape {shape}")
        if info.compress_type == zipfile.ZIP_STORED:
            self._map(info.header_offset, start)
        else:
            self._stream, self._next = stream, 0

    def _map(self, header: int, start: int) -> None:
        with self.path.open("rb") as file:
            file.seek(header)
            magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if magic != b"PK\3\4":
                raise ValueError("its place in the archive is not where the archive says")
            offset = header + _LOCAL_HEADER.size + name_length + extra_length + start
            if os.fstat(file.fileno()).st_size < offset + self.rows * self._width:
                raise ValueError("the file is truncated")
        shape = (self.rows, self.dimension)
        # numpy maps no empty array.
        empty = 0 in shape
        self._mapped = (
            np.empty(shape, self.dtype)
            if empty
            else np.memmap(self.path, self.dtype, "r", offset, shape)
        )

    @property
    def _width(self) -> int:
        return self.dimension * self.dtype.itemsize

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.floating[Any]]:
        """Return some rows, shape (n, dimension), in the dtype of the file.

        ``rows`` must be ascending; of a compressed array, each call goes on from the last one.
        """
        if len(rows) and not (rows[0] >= 0 and rows[-1] < self.rows):
            raise DataError(f"{self.path}: {self.name} has {self.rows:,} rows, no row {rows[-1]:,}")
        if self._stream is None:
            return np.asarray(self._mapped[rows])
        try:
            return self._take_from_stream(rows)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise DataError(
                f"{self.path}: {self.name} cannot be read: {_first_line(error)}"
            ) from None

    def _take_from_stream(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.floating[Any]]:
        assert self._stream is not None
        found = np.empty((len(rows), self.dimension), self.dtype)
        for place, row in enumerate(rows.tolist()):
            self._skip((row - self._next) * self._width)
            data = self._stream.read(self._width)
            if len(data) != self._width:
                raise EOFError("the data end too soon")
            found[place] = np.frombuffer(data, self.dtype)
            self._next = row + 1
        return found

    def _skip(self, count: int) -> None:
        assert self._stream is not None
        if count < 0:
            raise ValueError("rows of a compressed array must be taken in ascending order")
        while count > 0:
            skipped = len(self._stream.read(min(count, 1 << 20)))
            if not skipped:
                raise EOFError("the data end too soon")
            count -= skipped

    def close(self) -> None:
        """Let the file go."""
        self._stack.close()

    def __enter__(self) -> FeatureArray:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def feature_names(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file of features") from None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path}: not an .npz of features: {_first_line(error)}") from None
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def open_features(metadata: Path, name: str) -> FeatureArray:
    """Open the features beside a file of metadata; they must have as many rows.

    Raises MissingError where there are none, DataError where they do not fit.
    """
    path = metadata.with_suffix(".npz")
    if not path.is_file():
        raise MissingError(f"{path}: no such file of features")
    if path.is_symlink():
        locate(metadata.parent, path.name)
    array = FeatureArray(path, name)
    try:
        rows = _rows_of(metadata)
        if rows != array.rows:
            raise DataError(f"{path}: {name} has {array.rows:,} rows, but {metadata.name} {rows:,}")
    except BaseException:
        array.close()
        raise
    return array


def published(pool: Pool) -> list[dict[str, Any]]:
    """Return what features lie beside the metadata of a pool's sources, as ``Pool.info`` does.

    One row for each source, name, dimension and dtype, with the number of files. Files that cannot
    be read are passed over; ``pool check`` names them.
    """
    paths = pool.source_paths()
    found: Counter[tuple[int, str, int, str]] = Counter()
    for number, kind, options in pool.sql(
        "SELECT id, kind, options FROM sources ORDER BY id"
    ).fetchall():
        with contextlib.suppress(DatacompError):  # it may be gone, or of a kind that is not known
            source = source_class(kind).with_options(paths[number], json.loads(options))
            listed = source.listed()[0] if isinstance(source, LinkableSource) else []
            for metadata in listed:
                for name, dimension, dtype in _arrays_beside(metadata):
                    found[number, name, dimension, dtype] += 1
    return [
        {"name": name, "model": None, "weights": None, "precision": None, "dimension": dimension,
         "dtype": dtype, "file": f"{paths[number]}: {count:,} .npz"}
        for (number, name, dimension, dtype), count in sorted(found.items())
    ]  # fmt: skip


def _arrays_beside(metadata: Path) -> Iterator[tuple[str, int, str]]:
    path = metadata.with_suffix(".npz")
    with contextlib.suppress(DatacompError, OSError):
        if path.is_symlink():
            locate(metadata.parent, path.name)
        for name in feature_names(path):
            with contextlib.suppress(DataError), FeatureArray(path, name) as array:
                yield name, array.dimension, str(array.dtype)


class Features:
    """One kind of feature, such as ``l14_img``, of the samples of a pool.

    ``dimension`` and ``dtype`` are those of the first file that can be used. A file whose
    features are missing, broken or not as many as it has rows is listed in ``left_out`` when it
    is come to, and its samples, counted in ``without``, are passed over.
    """

    def __init__(self, pool: Pool, name: str, shape: tuple[int, np.dtype] | None = None) -> None:
        """Find the features; ``shape``, if known, spares looking through the list of samples."""
        self.pool, self.name = pool, name
        self.left_out: list[SetAside] = []
        self.without = 0
        self._places = places_of(pool, name)
        self.dimension, self.dtype = shape or self._look()

    def _look(self) -> tuple[int, np.dtype]:
        """Return dimension and dtype of the first file that can be used."""
        files = self.pool.sql(
            f"SELECT source, file FROM ({self._places.listing}) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        first: DatacompError | None = None
        for source, file in files:
            try:
                with self._array(source, file) as array:
                    return array.dimension, array.dtype
            except (DataError, MissingError) as error:
                first = first or error
        raise first or MissingError(f"{self.pool.path}: no sample comes with features")

    def _array(self, source: int, file: str) -> FeatureArray:
        return open_features(self._places.locate(source, file), self.name)

    def batches(
        self, relation: str = "samples", batch_size: int = 4096
    ) -> Iterator[tuple[UidArray, NDArray[np.floating[Any]]]]:
        """Yield uids (n,) and vectors (n, dimension), n at most ``batch_size``, in file order.

        ``relation`` is a table with a column ``uid``, or a SELECT of one. The list of samples
        is fixed before the first batch, so the caller may write to the pool in between.
        """
        for _, _, uids, vectors in self.located(relation, batch_size):
            yield uids, vectors

    def located(self, relation: str = "samples", batch_size: int = 4096) -> Iterator[Located]:
        """Yield the same, with the file (of a source) and the rows (n,) there of each batch."""
        listed = f"_features_{next(_numbers)}"
        wanted = f"SELECT uid FROM {relation}" if relation.isidentifier() else relation
        some = "" if relation == "samples" else f"SEMI JOIN ({wanted}) r USING (uid)"
        self.pool.sql(
            f"CREATE TEMP TABLE {listed} AS SELECT p.* FROM ({self._places.listing}) p {some} "
            "ORDER BY p.source, p.file, p.row"
        )
        try:
            yield from self._read(listed, batch_size)
        finally:
            with contextlib.suppress(DatacompError):  # the pool may be closed by now
                self.pool.sql(f"DROP TABLE IF EXISTS {listed}")

    def one(self, uid: int) -> NDArray[np.floating[Any]] | None:
        """Return the feature of one sample, shape (dimension,), None if it has none."""
        found = self.pool.row(
            f"SELECT source, file, row FROM ({self._places.listing}) WHERE uid = {uid}::UHUGEINT "
            "ORDER BY ALL LIMIT 1"
        )
        if found is None:
            return None
        return self.take((found[0], found[1]), np.array([found[2]]))[0]

    def take(self, file: File, rows: NDArray[np.integer[Any]]) -> NDArray[np.floating[Any]]:
        """Return the features of some rows of a file, ascending, shape (n, dimension)."""
        with self._alike(*file) as array:
            return array.take(rows)

    def stamp(self, file: File) -> tuple[int, int]:
        """Return what changes when a file of features does: its size and its time, in ns."""
        try:
            stat = self._places.locate(*file).with_suffix(".npz").stat()
        except OSError as error:
            raise MissingError(f"{file[1]}: {error.strerror}") from None
        return stat.st_size, stat.st_mtime_ns

    def _read(self, listed: str, batch_size: int) -> Iterator[Located]:
        files = self.pool.sql(
            f"SELECT source, file, min(rowid), max(rowid) + 1 FROM {listed} "
            "GROUP BY ALL ORDER BY min(rowid)"
        ).fetchall()
        for source, file, first, end in files:
            left = end - first
            try:
                array = self._alike(source, file)
            except (DataError, MissingError) as error:
                self._leave_out(file, error, left)
                continue
            with array:
                for uids, rows in self._slices(listed, first, end, batch_size):
                    try:
                        vectors = array.take(rows)
                    except DataError as error:
                        self._leave_out(file, error, left)
                        break
                    left -= len(rows)
                    yield (source, file), rows, uids, vectors

    def _alike(self, source: int, file: str) -> FeatureArray:
        """Open the features beside a file of metadata; they must be like those of the others."""
        array = self._array(source, file)
        if (array.dimension, array.dtype) != (self.dimension, self.dtype):
            array.close()
            raise DataError(
                f"{array.path}: {self.name} has {array.dimension} {array.dtype} a row, "
                f"other files {self.dimension} {self.dtype}"
            )
        return array

    def _slices(
        self, listed: str, first: int, end: int, batch_size: int
    ) -> Iterator[tuple[UidArray, NDArray[np.int64]]]:
        for start in range(first, end, _CHUNK):
            part = self.pool.table(
                f"SELECT {HALVES}, row FROM {listed} "
                f"WHERE rowid >= {start} AND rowid < {min(start + _CHUNK, end)} ORDER BY rowid"
            )
            uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
            rows = part["row"].to_numpy()
            for at in range(0, len(rows), batch_size):
                yield uids[at : at + batch_size], rows[at : at + batch_size]

    def _leave_out(self, file: str, error: DatacompError, samples: int) -> None:
        missing = isinstance(error, MissingError)
        reason = "features_missing" if missing else "features_broken"
        self.left_out.append(SetAside(file, reason, str(error)))
        self.without += samples


def _rows_of(metadata: Path) -> int:
    """Return how many rows a parquet file has, from its footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(metadata).num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{metadata}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
