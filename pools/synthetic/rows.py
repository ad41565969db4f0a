"""Rows of a PNG before they are packed, and their checksum, in one pass: kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel

_MODULUS = 65521
LONGEST = 1 << 12
"""Bytes of a row whose weighted sum stays below 2**32."""


@kernel
def fill_rows(values: Any, rows: Any) -> Any:
    """Put the filter's number, none, before each row; return the Adler-32 of all (RFC 1950).

    ``values`` is uint8 (h, n), ``rows`` uint8 (h, n + 1). The checksum's first sum is that of
    the bytes and its second that of the first one after every byte, so a row of n bytes adds to
    the second each of its bytes times how many follow, itself included.
    """
    height, width = values.shape
    first, second = np.int64(1), np.int64(0)
    for y in range(height):
        rows[y, 0] = 0
        second += first
        for begin in range(0, width, LONGEST):
            source = values[y, begin : begin + LONGEST]
            target = rows[y, 1 + begin : 1 + begin + LONGEST]
            total, weighted = np.uint32(0), np.uint32(0)
            for i in range(len(source)):
                target[i] = source[i]
                total += np.uint32(source[i])
                weighted += np.uint32(source[i]) * np.uint32(i)
            second += len(source) * (first + np.int64(total)) - np.int64(weighted)
            first = (first + np.int64(total)) % _MODULUS
            second %= _MODULUS
    return second << 16 | first
