"""How often samples are wanted: a parquet file of (uid, weight)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingError
from ...pools.uids import UidArray, to_hex
from ..subset import Lookup
from .columns import ANY_PARQUET, uid_records

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 3


def read_weights(path: Path, uids: UidArray) -> NDArray[np.float64]:
    """Return the weight of each uid, shape (n,); raise MissingError, DataError."""
    lookup = Lookup(uids)
    weights = np.full(len(uids), np.nan)
    for batch in _batches(path):
        values = batch["weight"].to_numpy(zero_copy_only=False).astype(np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(f"{path}: a weight is negative or no number")
        places = lookup.find(uid_records(batch["uid"], str(path), ANY_PARQUET))
        known = places[places >= 0]
        if len(np.unique(known)) < len(known) or not np.isnan(weights[known]).all():
            raise DataError(f"{path}: a uid stands there twice")
        weights[known] = values[places >= 0]
    lacking = np.isnan(weights)
    if lacking.any():
        shown = ", ".join(to_hex(uids[lacking][:LISTED]))
        raise DataError(f"{path}: has no weight for {int(lacking.sum()):,} uids ({shown})")
    return weights


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
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
            yield from file.iter_batches(100_000, columns=["uid", "weight"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable weights: {str(error).splitlines()[0]}") from None
