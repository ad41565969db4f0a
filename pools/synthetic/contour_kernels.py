"""The moving contours of VisualAtom and RCDB: kernels.

Both start with an ellipse of q vertices and move each vertex outward, orbit by orbit, by

    c - gain * c * noise + wave + drift

in its own direction, x and y with noise of their own; after each move the polygon is drawn in
one gray level over what is there. VisualAtom has gain 1 and a wave of two sines; RCDB has gain
2 and none, and adds the centre only when it draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .draws import bits
from .jit import kernel
from .lines import WORK, polygon
from .mersenne import randint, skip, words
from .perlin import SPAN, noise

_UNIT = 1.0 / 9007199254740992.0
_QUARTER = 1.5707963267948966
_5, _6 = np.uint32(5), np.uint32(6)
_32 = np.uint64(32)


@kernel
def _to_pixels(at: Any, shift: float, out: Any, count: int) -> None:
    """Cut coordinates off toward zero, as a cast in C does."""
    for v in range(count):
        out[v] = np.int32(at[v] + shift)


@kernel
def _moves(raw: Any, out: Any, c: float, gain: float, gradients: Any, count: int) -> None:
    """Turn pairs of words into the noise term of each vertex."""
    for v in range(count):
        draw = np.float64(raw[2 * v] >> _5) * 67108864.0 + np.float64(raw[2 * v + 1] >> _6)
        out[v] = noise(SPAN * (draw * _UNIT), gradients) * c * gain - c


@kernel
def draw_exact(
    pixels: Any, mt: Any, shape: Any, x: Any, y: Any, shift_x: float, shift_y: float,
    c: float, gain: float, drift: float, orbits: int, grays: int, gradients: Any,
) -> None:  # fmt: skip
    """Draw one image from a Mersenne Twister's stream, bit for bit as the authors' code.

    ``shape`` is float64 (4, q): cosine, sine and half of each sine of the wave at each vertex;
    ``x`` and ``y`` hold the first ellipse and are moved.
    """
    q = shape.shape[1]
    raw = np.empty(2 * q, np.uint32)
    move = np.empty(q)
    xs, ys = np.empty(q, np.int32), np.empty(q, np.int32)
    work = np.empty((WORK, q), np.int64)
    for _ in range(orbits):
        gray = np.uint8(min(randint(mt, 0, grays), 255))
        words(mt, raw, 2 * q)
        _moves(raw, move, c, gain, gradients, q)
        for v in range(q):
            x[v] -= shape[0, v] * (move[v] - shape[2, v] - shape[3, v] - drift)
        words(mt, raw, 2 * q)
        _moves(raw, move, c, gain, gradients, q)
        for v in range(q):
            y[v] -= shape[1, v] * (move[v] - shape[2, v] - shape[3, v] - drift)
        _to_pixels(x, shift_x, xs, q)
        _to_pixels(y, shift_y, ys, q)
        polygon(pixels, xs, ys, gray, work)


@kernel
def pass_exact(mt: Any, q: int, orbits: int, grays: int) -> None:
    """Pass over the numbers of one image."""
    for _ in range(orbits):
        randint(mt, 0, grays)
        skip(mt, 4 * q)


@kernel
def turn(step: int, q: int) -> Any:
    """Return cosine and sine of ``step`` / q of a full turn, 0 <= step < q."""
    quarter = (4 * step + q // 2) // q  # the nearest quarter turn: at most 1/8 turn is left
    left = (4 * step - quarter * q) * (_QUARTER / q)
    square = left * left
    cosine, sine = 1.0, 1.0
    for n in range(18, 0, -2):
        cosine = 1.0 - cosine * square / (n * (n - 1))
        sine = 1.0 - sine * square / (n * (n + 1))
    sine *= left
    if quarter % 2 == 1:
        cosine, sine = -sine, cosine
    return (cosine, sine) if quarter % 4 < 2 else (-cosine, -sine)


@kernel
def fill_shape(shape: Any, size1: float, n1: int, size2: float, n2: int) -> None:
    """Fill (4, q) with cosine, sine and two waves at each vertex, as ``draw_fast`` needs them."""
    q = shape.shape[1]
    for v in range(q):
        shape[0, v], shape[1, v] = turn(v, q)
    for v in range(q):
        shape[2, v] = size1 * shape[1, v * n1 % q]
        shape[3, v] = size2 * shape[1, v * n2 % q]


@kernel
def draw_fast(
    pixels: Any, key: Any, shape: Any, x: Any, y: Any, scale: float, c: float, gain: float,
    drift: float, orbits: int, grays: int, table: Any,
) -> None:  # fmt: skip
    """Draw one image from a named stream; parameters as for ``draw_exact``.

    ``table`` holds 2**16 values of the noise: 64 random bits serve two vertices.
    """
    q = shape.shape[1]
    xs, ys = np.empty(q, np.int32), np.empty(q, np.int32)
    work = np.empty((WORK, q), np.int64)
    steady = np.empty(q)
    for v in range(q):
        steady[v] = c + shape[2, v] + shape[3, v] + drift
    c *= gain
    half = (q + 1) >> 1
    raw = np.empty(half, np.uint64)
    places = raw.view(np.uint16)
    n = 0
    for _ in range(orbits):
        gray = np.uint8(min(((bits(key, n) >> _32) * np.uint64(grays)) >> _32, np.uint64(255)))
        for v in range(half):
            raw[v] = bits(key, n + 1 + v)
        n += 1 + half
        for v in range(q):
            x[v] += shape[0, v] * (steady[v] - c * np.float64(table[places[2 * v]]))
            y[v] += shape[1, v] * (steady[v] - c * np.float64(table[places[2 * v + 1]]))
            xs[v] = np.int32(x[v] * scale)
            ys[v] = np.int32(y[v] * scale)
        polygon(pixels, xs, ys, gray, work)
