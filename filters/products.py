"""Products of matrices that are the same, bit for bit, whatever the number of threads.

BLAS cuts a product up by how many threads there are, and sums in another order then. Here the
product is cut up the same way every time, and each piece is made by one thread of BLAS; the
threads that make the pieces are ours.
"""

from __future__ import annotations

import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingError

Numbers = TypeVar("Numbers", np.float32, np.float64)

_ROWS, _COLUMNS = 512, 4096
_one_at_a_time = threading.Lock()


def products(a: NDArray[Numbers], b: NDArray[Numbers]) -> NDArray[Numbers]:
    """Return the inner products of the rows of a and of b, shapes (n, d) and (m, d) to (n, m)."""
    found = np.empty((len(a), len(b)), a.dtype)
    pieces = [
        (slice(row, row + _ROWS), slice(column, column + _COLUMNS))
        for row in range(0, len(a), _ROWS)
        for column in range(0, len(b), _COLUMNS)
    ]

    def make(piece: tuple[slice, slice]) -> None:
        rows, columns = piece
        found[rows, columns] = a[rows] @ b[columns].T

    with _one_at_a_time, _blas().limit(limits=1, user_api="blas"):
        if len(pieces) == 1:
            make(pieces[0])
        else:
            list(_workers().map(make, pieces))
    return found


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "products")


@functools.cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        raise MissingError("filters on features need threadpoolctl: pip install it") from None
    return ThreadpoolController()
