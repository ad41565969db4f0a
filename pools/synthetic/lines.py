"""Closed polygons in lines one pixel wide, without smoothing: kernels.

Pixels are those of Bresenham's algorithm as Pillow runs it from the first point of each line:
after i steps along the longer axis, floor((2 i m + n) / 2 n) steps have been made along the
shorter one, n and m being the lengths along the axes. Here that is one multiplication by 1/n
in fixed point, which is exact for lines of fewer than ``_RECIPROCALS`` px; longer ones divide.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel

_LONGEST = 1024
RECIPROCALS = np.array([0, *(-(-(1 << 32) // n) for n in range(1, _LONGEST))], np.int64)
_HALF = np.int64(1) << np.int64(31)
_SHIFT = np.int64(32)
_STRIDE = 4
"""Pixels drawn without a look whether the line has ended: most lines are shorter, and a guess
where a loop ends costs more when it is wrong than drawing the first pixel again."""


@kernel
def _clipped(pixels: Any, x: int, y: int, dx: int, dy: int, gray: Any) -> None:
    """Draw a line of any length, of which any part may lie outside."""
    height, width = pixels.shape
    sx = 1 if dx > 0 else -1
    sy = 1 if dy > 0 else -1
    dx, dy = abs(dx), abs(dy)
    wide = dx > dy
    n, m = (dx, dy) if wide else (dy, dx)
    error = 2 * m - n
    for _ in range(n):
        if 0 <= x < width and 0 <= y < height:
            pixels[y, x] = gray
        if error >= 0:
            error -= 2 * n
            if wide:
                y += sy
            else:
                x += sx
        error += 2 * m
        if wide:
            x += sx
        else:
            y += sy


@kernel
def polygon(pixels: Any, xs: Any, ys: Any, count: int, gray: Any, reciprocals: Any) -> None:
    """Draw the closed polygon of ``count`` points, integers, into ``pixels``, uint8 (h, w).

    Each line leaves out its last point, which is the next one's first.
    """
    height, width = pixels.shape
    flat = pixels.reshape(height * width)
    x1, y1 = xs[count - 1], ys[count - 1]
    inside1 = 0 <= x1 < width and 0 <= y1 < height
    for point in range(count):
        x0, y0, inside0 = x1, y1, inside1
        x1, y1 = xs[point], ys[point]
        inside1 = 0 <= x1 < width and 0 <= y1 < height
        dx, dy = x1 - x0, y1 - y0
        if inside0 and inside1:
            wide, high = abs(dx), abs(dy)
            n = max(wide, high)
            along, across = (1 if dx > 0 else -1), (width if dy > 0 else -width)
            if wide <= high:
                along, across = across, along
            at = y0 * width + x0
            flat[np.uintp(at)] = gray  # unsigned: an index that could be negative costs a test
            if n < len(reciprocals):
                slope = min(wide, high) * reciprocals[np.uintp(n)]
                place = _HALF
                first = at
                for done in range(0, n, _STRIDE):
                    for step in range(done, done + _STRIDE):
                        pixel = at + (place >> _SHIFT) * across if step < n else first
                        flat[np.uintp(pixel)] = gray
                        at += along
                        place += slope
            else:
                _clipped(pixels, x0, y0, dx, dy, gray)
        else:
            beside = max(x0, x1) < 0 or min(x0, x1) >= width
            if beside or max(y0, y1) < 0 or min(y0, y1) >= height:
                continue
            if inside0:
                flat[y0 * width + x0] = gray
            _clipped(pixels, x0, y0, dx, dy, gray)


@kernel
def count_drawn(pixels: Any, background: int) -> Any:
    """Return how many pixels, uint8 (h, w), differ from the background."""
    total = 0
    for row in pixels:
        drawn = np.int32(0)  # narrow, so that more of them fit a vector
        for value in row:
            drawn += np.int32(value != background)
        total += drawn
    return total
