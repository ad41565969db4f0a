"""Lossless PNGs at the speed of the generators.

Pictures of lines and points have nothing to gain from PNG's filters and much from a fast
deflate, so rows are stored unfiltered, with one channel or one bit a pixel where that is
enough, and packed by a deflate of our own. ``PACKER`` names what the bytes depend on.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from .contract import Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _COLOUR, _PALETTE = 0, 2, 3
_END = b"\0\0\0\0IEND\xaeB`\x82"
_ZLIB = b"\x78\x01"

PACKER = "deflate 2"
"""Counts up whenever the same pixels become other bytes."""


def encode(picture: Picture) -> bytes:
    """Return a picture as PNG."""
    import numpy as np

    pixels = picture.pixels
    height, width = pixels.shape[:2]
    palette, depth = b"", 8
    if pixels.ndim == 3:
        kind, values = _COLOUR, pixels.reshape(height, -1)
    elif picture.levels is not None:
        kind, depth = _PALETTE, 1
        values = np.packbits(pixels != picture.levels[0], axis=1)  # 0 for the background
        palette = _chunk(b"PLTE", b"".join(bytes([level] * 3) for level in picture.levels))
    else:
        kind, values = _GRAY, pixels
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = _zlib(values)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), palette, _chunk(b"IDAT", data), _END))


def _zlib(values: NDArray[np.uint8]) -> bytes:
    """Return (h, n) bytes as unfiltered rows in a zlib stream (RFC 1950)."""
    import numpy as np

    from .deflate import deflate
    from .rows import fill_rows

    rows = np.empty((values.shape[0], values.shape[1] + 1), np.uint8)
    check = struct.pack(">I", fill_rows(values, rows))
    return b"".join((_ZLIB, deflate(rows.reshape(-1)).data, check))


def _chunk(name: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
    )
