"""The headers of many tar members at once: one matrix, read, checked and made by numpy.

The checks are those that ``tar`` makes header by header, for the members of ordinary tars: plain
files with short names, and PAX headers that tell a time. Each returns which rows pass, (n,) bool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import tar

BLOCK = tar.BLOCK
FILE, PAX = ord("0"), ord("x")
NAME, DIGITS = slice(0, 100), slice(124, 135)
"""The columns of a header with a member's name, and with its size."""

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Passed = NDArray[np.bool_]

_SUM, _SUM_FIELD, _KIND, _PREFIX = slice(148, 154), slice(148, 156), 156, 345
_REST = 160  # what follows is the same in all headers of most tars
_SPACES = 8 * ord(" ")
_POWERS = 8 ** np.arange(10, -1, -1, dtype=np.int64)
_SHIFTS = np.arange(15, -1, -3, dtype=np.int64)
_LANES = np.uint64(0x00FF00FF00FF00FF)
_TIME = np.frombuffer(b"time=", np.uint8)
_TIME_START = 9


def octal(digits: Bytes) -> tuple[Numbers, Passed]:
    """Read numbers of octal digits, (n, digits); what is none is some number that fails."""
    values = digits - np.uint8(48)  # what is no digit wraps around, far above 7
    return values.astype(np.int64) @ _POWERS[-digits.shape[1] :], np.asarray((values < 8).all(1))


def plain_headers(heads: Bytes, kind: int) -> Passed:
    """Check kind, prefix, the form of the size, and checksum of headers, (n, 512)."""
    if (heads[:, _REST:].view(np.uint64) == heads[0, _REST:].view(np.uint64)).all():
        sums = _byte_sums(heads[:, :_REST]) + int(heads[0, _REST:].sum(dtype=np.int64))
    else:
        sums = _byte_sums(heads)
    wanted, passed = octal(heads[:, _SUM])
    passed &= sums - heads[:, _SUM_FIELD].sum(1, dtype=np.int64) + _SPACES == wanted
    passed &= (heads[:, _KIND] == kind) & (heads[:, _PREFIX] == 0)
    passed &= (heads[:, 135] == 0) & (heads[:, 154] == 0)
    passed &= octal(heads[:, DIGITS])[1]
    return passed


def _byte_sums(rows: Bytes) -> Numbers:
    """Add up the bytes of each row, a multiple of 8 and at most 512 of them."""
    words = rows.view(np.uint64)
    lanes = ((words & _LANES) + (words >> np.uint64(8) & _LANES)).sum(1).view(np.uint16)
    return lanes.reshape(-1, 4).sum(1, dtype=np.int64)


def times(heads: Bytes, texts: Bytes) -> Passed:
    """Check PAX headers that tell a time and nothing else, (n, 512), with what they tell."""
    size, _ = octal(heads[:, DIGITS])
    passed = plain_headers(heads, PAX) & (size > 10) & (size < 100)
    size = np.where(passed, size, 11)
    passed &= (texts[:, 0] == size // 10 + 48) & (texts[:, 1] == size % 10 + 48)
    passed &= (texts[:, 2] == ord(" ")) & np.isin(texts[:, 3], (97, 99, 109))
    passed &= (texts[:, 4:_TIME_START] == _TIME).all(1)
    inside = texts[:, _TIME_START : int(size.max()) - 1]
    behind = np.arange(_TIME_START, _TIME_START + inside.shape[1]) >= size[:, None] - 1
    passed &= ((inside - np.uint8(48) < 10) | (inside == ord(".")) | behind).all(1)
    passed &= np.take_along_axis(texts, size[:, None] - 1, 1)[:, 0] == ord("\n")
    return passed


def stem_lengths(names: Bytes, extension: bytes) -> tuple[Numbers, Passed]:
    """Check names, (n, 100), that end with an extension; return the lengths of their stems.

    Ordinary names are ASCII, without folders, and not hidden.
    """
    used = names != 0
    passed = (used[:, 1:] <= used[:, :-1]).all(1) & (names < 128).all(1)
    passed &= ~((names == ord("/")) | (names == ord("\\"))).any(1)
    length = (names == ord(".")).argmax(1)
    passed &= length > 0  # no dot, or a hidden file
    passed &= used.sum(1) == length + 1 + len(extension)
    wanted = np.frombuffer(extension, np.uint8)
    ends = np.minimum(length[:, None] + 1 + np.arange(len(wanted)), names.shape[1] - 1)
    passed &= (np.take_along_axis(names, ends, 1) == wanted).all(1)
    return length, passed


def ustar_headers(names: Bytes, digits: Bytes) -> Bytes:
    """Return the headers that ``tar.ustar_header`` makes, (n, 512).

    ``names`` are filled up with zeros, (n, 100) and the sizes ``digits``, (n, 11), both checked.
    """
    heads = np.empty((len(names), BLOCK), np.uint8)
    heads[:] = _TEMPLATE
    heads[:, NAME], heads[:, DIGITS] = names, digits
    total = _FIXED_SUM + names.sum(1, dtype=np.int64) + digits.sum(1, dtype=np.int64)
    heads[:, _SUM] = (total[:, None] >> _SHIFTS & 7) + 48
    return heads


_TEMPLATE = np.frombuffer(tar.ustar_header("-", 0), np.uint8).copy()
_TEMPLATE[NAME] = _TEMPLATE[DIGITS] = 0
_FIXED_SUM = (
    int(_TEMPLATE.sum(dtype=np.int64)) - int(_TEMPLATE[_SUM_FIELD].sum(dtype=np.int64)) + _SPACES
)
