"""Closed polygons in lines one pixel wide, without smoothing: kernels.

Pixels are those of Bresenham's algorithm as Pillow runs it from the first point of each line:
after i steps along the longer axis, floor((2 i m + n) / 2 n) steps have been made along the
shorter one, n and m being the lengths along the axes. Here that is one multiplication by 1/n
in fixed point, which is exact for short lines; longer ones, and those that leave the picture,
are drawn with Bresenham's own additions.

A polygon has one gray level, so its lines may be drawn in any order: those of one length
together. Lines are a few pixels long and no length follows from the one before, so that a
processor would guess wrong where nearly every one of them ends, and a wrong guess costs more
than a line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel

_SHORT = 60
"""Lines of fewer pixels are drawn by length; few are longer."""
_LONG, _LEAVING, _BESIDE = _SHORT, _SHORT + 1, _SHORT + 2
WORK = _SHORT + 4
_RECIPROCALS = np.array([0, *(-(-(1 << 32) // n) for n in range(1, _SHORT))], np.int64)
_HALF = np.int64(1) << np.int64(31)
_SHIFT = np.int64(32)
_RIGHT, _DOWN, _WIDE = 1, 2, 4


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
def polygon(pixels: Any, xs: Any, ys: Any, gray: Any, work: Any) -> None:
    """Draw the closed polygon of q points, int32, into ``pixels``, uint8 (h, w).

    Each line leaves out its last point, which is the next one's first. ``work`` is int64 of
    WORK rows of at least q: room for the lines, whatever it holds.
    """
    height, width = pixels.shape
    flat = pixels.reshape(height * width)
    count, room = len(xs), work.shape[1]
    lines, stacks, tops = work[WORK - 1], work.reshape(work.size), np.empty(WORK, np.int64)
    _describe(xs, ys, width, height, lines)
    for length in range(WORK):
        tops[length] = length * room
    for point in range(count):  # without a branch
        line = lines[point]
        length = np.uintp(line & 63)
        stacks[np.uintp(tops[length])] = line >> 6 if length < _SHORT else point
        tops[length] += 1
    for length in range(_SHORT):
        reciprocal = _RECIPROCALS[length]
        for line in stacks[length * room : tops[length]]:
            across, along = (1 if line & _RIGHT else -1), (width if line & _DOWN else -width)
            if line & _WIDE:
                along, across = across, along
            at, slope, place = line >> 9, (line >> 3 & 63) * reciprocal, _HALF
            flat[np.uintp(at)] = gray  # unsigned: an index that could be negative costs a test
            for _ in range(1, length):
                at += along
                place += slope
                flat[np.uintp(at + (place >> _SHIFT) * across)] = gray
    for kind in (_LONG, _LEAVING):
        for point in stacks[kind * room : tops[kind]]:
            x, y = xs[point - 1], ys[point - 1]
            if 0 <= x < width and 0 <= y < height:
                flat[y * width + x] = gray
            _clipped(pixels, x, y, xs[point] - x, ys[point] - y, gray)


@kernel
def _describe(xs: Any, ys: Any, width: int, height: int, lines: Any) -> None:
    """Describe the line that ends in each point, in one integer.

    From the lowest bit: six of its length, or else ``_LONG``, ``_LEAVING`` the picture or
    ``_BESIDE`` it; three of its direction; six of how far it goes along the shorter axis; its
    first pixel's place. The latter three mean nothing where the first is no length.
    """
    x1, y1 = xs[-1], ys[-1]
    for point in range(len(xs)):
        x0, y0, x1, y1 = x1, y1, xs[point], ys[point]
        dx, dy = np.int64(x1) - x0, np.int64(y1) - y0
        wide, high = abs(dx), abs(dy)
        inside = (x0 >= 0) & (x0 < width) & (y0 >= 0) & (y0 < height)
        inside &= (x1 >= 0) & (x1 < width) & (y1 >= 0) & (y1 < height)
        beside = (max(x0, x1) < 0) | (min(x0, x1) >= width)
        beside |= (max(y0, y1) < 0) | (min(y0, y1) >= height)
        length = min(max(wide, high), _LONG) if inside else _LEAVING
        direction = (
            np.int64(dx > 0) * _RIGHT | np.int64(dy > 0) * _DOWN | np.int64(wide > high) * _WIDE
        )
        line = (y0 * width + x0) << 9 | (min(wide, high) & 63) << 3 | direction
        lines[point] = line << 6 | (_BESIDE if beside else length)


@kernel
def count_drawn(pixels: Any, background: int) -> Any:
    """Return how many pixels, uint8 (h, w) with w below 2**16, differ from the background."""
    blank = np.uint8(background)
    total = 0
    for row in pixels:
        drawn = np.uint16(0)  # narrow, so that more of them fit a vector
        for value in row:
            drawn = np.uint16(drawn + np.uint16(value != blank))
        total += drawn
    return total
