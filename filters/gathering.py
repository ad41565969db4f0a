"""Bring the uids that a query finds together, to be sorted.

Files of metadata have uids as text. For DuckDB to make numbers of it takes three times as long as
to hand the text over, so where nothing else needs the number, text is what is asked for.
"""

from __future__ import annotations

import binascii
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..pools.pool import HALVES
from ..pools.uid_sorter import UidSorter
from ..pools.uids import UID_DTYPE, UidArray, from_halves
from ..progress import Progress
from .relations import CANDIDATES, UID_TEXT, Relations, record_batches

_BATCH = 1 << 16
"""So many rows at a time: their text is in the processor's cache."""
_HEX = 32


class Gatherer:
    """Collects uids from the candidates of a run; ``total`` is how many rows there may be."""

    def __init__(self, relations: Relations, total: int) -> None:
        self._relations, self._total = relations, total

    def where(self, predicate: str) -> UidSorter:
        """Return the uids of the candidates for which SQL is true."""
        condition = "" if predicate == "true" else f" WHERE {predicate}"
        written = self._relations.show_written()
        if written is not None:
            found = self._gather(f"SELECT {UID_TEXT} AS uid FROM {written}{condition}")
            if found is not None:
                return found
        found = self._gather(f"SELECT {HALVES} FROM {CANDIDATES}{condition}")
        assert found is not None
        return found

    def by_number(self, relation: str, weight: str | None, counts: NDArray[np.int64]) -> UidSorter:
        """Return the uids where ``dropped`` is 0, each ``weight`` times; count the numbers.

        ``counts`` (n,) is filled with how often each number stands in ``dropped``.
        """
        seen = "" if weight is None else f", coalesce({weight}, 0)::UINTEGER AS seen"
        found = self._gather(f"SELECT dropped, {HALVES}{seen} FROM {relation}", counts)
        assert found is not None
        return found

    def _gather(self, query: str, counts: NDArray[np.int64] | None = None) -> UidSorter | None:
        """Return the uids of a query's rows; None where one is not what it should be."""
        pool = self._relations.pool
        sorter = UidSorter()
        with Progress("deciding", self._total) as progress:
            for batch in record_batches(pool, query, _BATCH):
                uids = _text_uids(batch["uid"]) if "uid" in batch.schema.names else None
                if uids is None and "uid" in batch.schema.names:
                    return None
                sorter.add(_number_uids(batch, counts) if uids is None else uids)
                progress.advance(batch.num_rows)
        return sorter


def _text_uids(text: pa.Array) -> UidArray | None:
    """Return the uids that stand in hex, shape (n,), or None where any is not 32 hex digits."""
    if text.null_count:
        return None
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset :][: len(text) + 1]
    if not np.all(np.diff(offsets) == _HEX):
        return None
    digits = text.buffers()[2]
    if digits is None:
        return np.empty(0, UID_DTYPE)
    try:
        raw = binascii.unhexlify(memoryview(digits)[offsets[0] : offsets[-1]])
    except binascii.Error:
        return None
    return np.frombuffer(raw, ">u8").astype("<u8").view(UID_DTYPE)


def _number_uids(batch: pa.RecordBatch, counts: NDArray[np.int64] | None) -> UidArray:
    """Return the uids of the rows that stay, as often as they are to be seen."""
    # Arrow's own to_numpy imports pandas, which takes 0.3 s and 40 MB.
    found: dict[str, Any] = {name: np.from_dlpack(batch[name]) for name in batch.schema.names}
    stays: Any = slice(None)
    if counts is not None:
        stays = found["dropped"] == 0
        counts += np.bincount(found["dropped"], minlength=len(counts))
    uids = from_halves(found["high"][stays], found["low"][stays])
    return np.repeat(uids, found["seen"][stays]) if "seen" in found else uids
