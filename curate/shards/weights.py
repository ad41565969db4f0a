"""How often samples are wanted: a parquet file of (uid, weight)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingError
from ...pools.uids import UID_DTYPE, UidArray, to_hex
from ..subset import Lookup
from .buckets import Buckets
from .columns import ANY_PARQUET, uid_records
from .sieve import Sieve

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 3
_ROW = np.dtype([("uid", UID_DTYPE), ("weight", "<f8")])


class Weights:
    """The weights of a file, asked for by the parts of a subset.

    Of more than one part the rows are sorted out first, into a file without a name in ``folder``.
    """

    def __init__(self, path: Path, sieve: Sieve | None, folder: Path) -> None:
        """``sieve`` tells the parts; without one there is but one. Raises what ``of`` raises."""
        self._path = path
        self._sorted: Buckets | None = None
        self._lacking, self._shown = 0, []
        if sieve is None:
            return
        self._sorted = Buckets(sieve.parts, _ROW, folder)
        for uids, values in _batches(path):
            rows, parts = sieve.find(uids)
            found = np.empty(len(rows), _ROW)
            found["uid"], found["weight"] = uids[rows], values[rows]
            self._sorted.add(parts, found)

    def of(self, part: int, uids: UidArray, lookup: Lookup) -> NDArray[np.float64]:
        """Return the weight of each uid of a part, shape (n,); NaN where there is none.

        ``lookup`` finds them. Raises MissingError, DataError.
        """
        weights = np.full(len(uids), np.nan)
        for found, values in self._rows(part):
            places = lookup.find(found)
            known = places[places >= 0]
            if len(np.unique(known)) < len(known) or not np.isnan(weights[known]).all():
                raise DataError(f"{self._path}: a uid stands there twice")
            weights[known] = values[places >= 0]
        lacking = np.flatnonzero(np.isnan(weights))
        self._lacking += len(lacking)
        self._shown += to_hex(uids[lacking[: LISTED - len(self._shown)]])
        return weights

    def require_all(self) -> None:
        """Raise DataError if a uid of some part asked for had no weight."""
        if self._lacking:
            shown = ", ".join(self._shown)
            raise DataError(f"{self._path}: has no weight for {self._lacking:,} uids ({shown})")

    def _rows(self, part: int) -> Iterator[tuple[UidArray, NDArray[np.float64]]]:
        if self._sorted is None:
            return _batches(self._path)
        return ((rows["uid"], rows["weight"]) for rows in self._sorted.pieces(part, part + 1))


def _batches(path: Path) -> Iterator[tuple[UidArray, NDArray[np.float64]]]:
    for batch in _tables(path):
        values = batch["weight"].to_numpy(zero_copy_only=False)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(f"{path}: a weight is negative or no number")
        yield uid_records(batch["uid"], str(path), ANY_PARQUET), values


def _tables(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise MissingError(f"{path}: no such file of weights")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not {"uid", "weight"} <= set(names):
                raise DataError(
                    f"{path}: has the columns {', '.join(names)}, but weights need uid and weight"
                )
            for batch in file.iter_batches(100_000, columns=["uid", "weight"]):
                place = batch.schema.get_field_index("weight")
                yield batch.set_column(place, "weight", batch["weight"].cast(pa.float64()))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable weights: {str(error).splitlines()[0]}") from None
