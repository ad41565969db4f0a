"""Iterated function systems: chaos game, search, painting and projection, as kernels.

A system is a float64 array of shape (maps, 7) in the plane, a row being a b c d e f p with
x' = ax + by + e and y' = cx + dy + f, or of shape (maps, 13) in space: the linear part row by
row, the shift, p. The chaos game (Barnsley, Fractals Everywhere, 1988) starts at the origin and
goes on by one map after another, each drawn with its chance p.

The floating-point operations come in the order of the scripts of FractalDB's authors, so that
the same random numbers give the same pixels. So do their odd cases: a random number beyond the
sum of all chances (which may round to less than 1) leaves the point where it is, and where a
game ends in what is not a number, the hundred points before that are dropped with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .draws import below, stream, unit
from .jit import kernel
from .mersenne import word, words

DROPPED = 100
"""Points dropped before the first that is not a number."""

BOUND = 1e6
"""A system whose points spread wider than this diverges."""

PAINTED, TABLE = 3, 128
"""Side of the patch that a point becomes; colours in the wheel."""

_SEARCH, _GAME = 11, 12
"""Purposes of streams."""

_CHUNK = 2048
_SPACE = 12
_TO_UNIT = 1.0 / 9007199254740992.0


# --- random numbers ---


@kernel
def numbers(key: Any, out: Any) -> None:
    """Fill ``out`` with a stream's first numbers in [0, 1)."""
    for n in range(len(out)):
        out[n] = unit(key, n)


@kernel
def _legacy_numbers(mt: Any, raw: Any, out: Any) -> None:
    """Fill ``out`` as numpy's ``RandomState.random_sample`` does; ``raw`` is twice as long."""
    words(mt, raw, 2 * len(out))
    for n in range(len(out)):
        high, low = raw[2 * n] >> np.uint32(5), raw[2 * n + 1] >> np.uint32(6)
        out[n] = (high * 67108864.0 + low) * _TO_UNIT


# --- the chaos game ---


@kernel
def _choose(system: Any, chances: Any, out: Any) -> None:
    """Turn random numbers into numbers of maps; as many as there are maps stands for none."""
    last = system.shape[1] - 1
    for start in range(0, len(out), _CHUNK):  # map by map within a chunk: done in vectors
        part = out[start : start + _CHUNK]
        part[:] = 0
        total = 0.0
        for m in range(len(system)):
            total += system[m, last]
            _add_beyond(chances[start : start + len(part)], total, part)


@kernel
def _add_beyond(chances: Any, bound: float, out: Any) -> None:
    for n in range(len(out)):
        out[n] = out[n] + (1 if chances[n] > bound else 0)


@kernel
def play(system: Any, chances: Any, chosen: Any, xs: Any, ys: Any) -> int:
    """Write the points of a game in the plane, the origin first; return how many hold.

    Point n + 1 comes by the map that chances[n] draws. ``chosen`` is room for uint8.
    """
    _choose(system, chances[: len(xs)], chosen)
    maps = len(system)
    x, y = 0.0, 0.0
    xs[0], ys[0] = x, y
    for n in range(len(xs) - 1):
        m = chosen[n]
        if m < maps:
            following = x * system[m, 0] + y * system[m, 1] + system[m, 4]
            y = x * system[m, 2] + y * system[m, 3] + system[m, 5]
            x = following
        xs[n + 1], ys[n + 1] = x, y
    # What is not a number stays so, in both coordinates from the next point on.
    if not (np.isnan(x) or np.isnan(y)):
        return len(xs)
    return _held(ys, _held(xs, len(xs)))


@kernel
def _held(values: Any, count: int) -> int:
    for n in range(count):
        if np.isnan(values[n]):
            return max(0, n - DROPPED)
    return count


@kernel
def _extent(values: Any, count: int) -> Any:
    low, high = values[0], values[0]
    for n in range(count):
        low, high = min(low, values[n]), max(high, values[n])
    return low, high


@kernel
def spread(xs: Any, ys: Any, count: int) -> float:
    """Return the larger side of the points' box; infinite where there are no points."""
    if count == 0:
        return np.inf
    left, right = _extent(xs, count)
    bottom, top = _extent(ys, count)
    return max(right - left, top - bottom)


@kernel
def _scaled(value: float, low: float, span: float, room: float, pad: float) -> Any:
    # The authors' cast turns what is not a number, such as 0/0, into 0.
    place = np.true_divide(value - low, span) * room + pad
    return 0 if np.isnan(place) else np.int32(place)


@kernel
def settle(xs: Any, ys: Any, count: int, side: int, pad: int, out: Any) -> None:
    """Write the pixel (row * side + column, int32) of each point; each axis fills the image.

    The padding is at least 1. The origin is among the points, so that no box lies wholly on
    the positive side (which the authors' scripts would not move).
    """
    if count == 0:
        return
    left, right = _extent(xs, count)
    bottom, top = _extent(ys, count)
    room = float(side - 2 * pad)
    width, height = right - left, top - bottom
    for n in range(count):
        column = _scaled(xs[n], left, width, room, float(pad))
        row = _scaled(ys[n], bottom, height, room, float(pad))
        out[n] = row * side + column


@kernel
def distinct(pixels: Any, count: int, seen: Any) -> Any:
    """Count the different pixels; ``seen`` is room for a byte per pixel of the image."""
    seen[:] = 0
    for n in range(count):
        seen[pixels[n]] = 1
    return np.int64(seen.sum())


# --- painting ---


@kernel
def last_visits(pixels: Any, count: int, last: Any, where: Any, when: Any) -> int:
    """List the different pixels in the order of their last visit; return how many there are.

    ``where[k]`` is the pixel and ``when[k]`` the number of the last point on it: all that can
    be seen of a picture in which later points cover earlier ones. ``last`` is room for an int32
    per pixel of the image.
    """
    for n in range(count):
        last[pixels[n]] = n
    visited = 0
    for n in range(count):
        if last[pixels[n]] == n:
            where[visited], when[visited] = pixels[n], n
            visited += 1
    return visited


@kernel
def cover(where: Any, visited: int, side: int, owner: Any) -> None:
    """Find which patch is on top at each pixel of an image of side * side.

    A patch of 3 by 3 lies one to four pixels down and right of its point. Patch k is written
    as ``16 * k + bit``, bit 8 being its first pixel and bit 0 its last; ``16 * visited`` stands
    for no patch.
    """
    owner[:] = visited * 16
    for k in range(visited):
        row, column = where[k] // side + 1, where[k] % side + 1
        for i in range(min(PAINTED, side - row)):
            at = (row + i) * side + column
            for j in range(min(PAINTED, side - column)):
                owner[at + j] = k * 16 + 8 - PAINTED * i - j


@kernel
def draw_masks(key: Any, when: Any, visited: int, masks: Any) -> None:
    """Draw the mask of each patch: any of the 511 that are not empty, by its point's number."""
    for k in range(visited):
        masks[k] = 1 + below(key, when[k], 511)
    masks[visited] = 0


@kernel
def paint_gray(owner: Any, masks: Any, ink: int, image: Any) -> None:
    """Write each pixel of a gray image of uint8: ink where the mask on top has a hole."""
    for n in range(len(owner)):
        image[n] = ink * ((masks[owner[n] >> 4] >> (owner[n] & 15)) & 1)


@kernel
def paint_color(owner: Any, masks: Any, when: Any, wheel: Any, image: Any) -> None:
    """Write each pixel of a colour image, shape (pixels, 3); the wheel turns with the points.

    ``when`` has an entry for no patch, as ``masks`` has.
    """
    for n in range(len(owner)):
        k = owner[n] >> 4
        hole = (masks[k] >> (owner[n] & 15)) & 1
        for channel in range(3):
            image[n, channel] = hole * wheel[when[k] % TABLE, channel]


@kernel
def dot_gray(where: Any, visited: int, ink: int, image: Any) -> None:
    """Write the pixels that were visited."""
    image[:] = 0
    for k in range(visited):
        image[where[k]] = ink


@kernel
def dot_color(where: Any, when: Any, visited: int, wheel: Any, image: Any) -> None:
    """Write the pixels that were visited, each in the colour of its last point."""
    image[:] = 0
    for k in range(visited):
        for channel in range(3):
            image[where[k], channel] = wheel[when[k] % TABLE, channel]


# --- search in the plane ---


@kernel
def _share_chances(system: Any, maps: int) -> None:
    """Divide the chances (the determinants' sizes so far) by their sum."""
    last = system.shape[1] - 1
    total = 0.0
    for m in range(maps):
        total += system[m, last]
    for m in range(maps):
        system[m, last] = system[m, last] / total if total > 0.0 else 1.0 / maps


@kernel
def filling(
    system: Any, chances: Any, side: int, pad: int, chosen: Any, xs: Any, ys: Any, pixels: Any,
    seen: Any,
) -> int:  # fmt: skip
    """Return how many different pixels a game of ``len(xs)`` points reaches."""
    held = play(system, chances, chosen, xs, ys)
    settle(xs, ys, held, side, pad, pixels)
    return distinct(pixels, held, seen)


@kernel
def draw_plane(key: Any, fewest: int, most: int, reach: float, system: Any) -> int:
    """Draw a system of the plane; return its number of maps."""
    maps = fewest + below(key, 0, most - fewest + 1)
    for m in range(maps):
        for n in range(6):
            system[m, n] = reach * (2.0 * unit(key, 1 + 6 * m + n) - 1.0)
        system[m, 6] = abs(system[m, 0] * system[m, 3] - system[m, 1] * system[m, 2])
    _share_chances(system, maps)
    return maps


@kernel
def search_plane(
    seed: int, class_id: int, fewest: int, most: int, reach: float, side: int, pad: int,
    needed: int, pilot: int, tries: int, system: Any, chances: Any, chosen: Any, xs: Any, ys: Any,
    pixels: Any, seen: Any,
) -> Any:  # fmt: skip
    """Find the class's first system that reaches ``needed`` pixels: (maps, pixels, tries).

    New pixels come ever more seldom, so that a system which has not reached its share after
    ``pilot`` points is given up. No maps where ``tries`` systems did not do.
    """
    for attempt in range(tries):
        maps = draw_plane(stream(seed, class_id, attempt, _SEARCH), fewest, most, reach, system)
        numbers(stream(seed, class_id, attempt, _GAME), chances)
        start = filling(
            system[:maps], chances, side, pad, chosen[:pilot], xs[:pilot], ys[:pilot], pixels, seen
        )
        if start * len(xs) < needed * pilot or not spread(xs, ys, pilot) < BOUND:
            continue
        reached = filling(system[:maps], chances, side, pad, chosen, xs, ys, pixels, seen)
        if reached >= needed and spread(xs, ys, len(xs)) < BOUND:
            return maps, reached, attempt + 1
    return 0, 0, tries


@kernel
def legacy_search(
    mt: Any, fewest: int, most: int, reach: float, side: int, pad: int, needed: int, tries: int,
    system: Any, raw: Any, chances: Any, chosen: Any, xs: Any, ys: Any, pixels: Any, seen: Any,
) -> Any:  # fmt: skip
    """Find the next system as the authors' search does, from the state of numpy's twister."""
    mask = np.uint32(1)
    while mask < most - fewest:
        mask = np.uint32(2 * mask + 1)
    parameters = np.empty(6)
    few = np.empty(12, np.uint32)
    for attempt in range(tries):
        maps = most + 1
        while maps > most:
            maps = fewest + int(word(mt) & mask)
        for m in range(maps):
            _legacy_numbers(mt, few, parameters)
            for n in range(6):
                system[m, n] = -reach + 2.0 * reach * parameters[n]
            system[m, 6] = abs(system[m, 0] * system[m, 3] - system[m, 1] * system[m, 2])
        _share_chances(system, maps)
        _legacy_numbers(mt, raw, chances)
        reached = filling(system[:maps], chances, side, pad, chosen, xs, ys, pixels, seen)
        if reached >= needed:
            return maps, reached, attempt + 1
    return 0, 0, tries


# --- space ---


@kernel
def play_space(system: Any, chances: Any, chosen: Any, points: Any) -> None:
    """Write the points of a game in space, float64 of shape (3, n); the origin is left out."""
    _choose(system, chances, chosen)
    maps = len(system)
    x, y, z = 0.0, 0.0, 0.0
    for n in range(points.shape[1]):
        m = chosen[n]
        if m < maps:
            following = x * system[m, 0] + y * system[m, 1] + z * system[m, 2] + system[m, 9]
            further = x * system[m, 3] + y * system[m, 4] + z * system[m, 5] + system[m, 10]
            z = x * system[m, 6] + y * system[m, 7] + z * system[m, 8] + system[m, 11]
            x, y = following, further
        points[0, n], points[1, n], points[2, n] = x, y, z


@kernel
def normalize(points: Any) -> float:
    """Scale all coordinates together to [-1, 1], then centre; return the spread before.

    Where the points diverge they are left as they are and the spread is infinite. As in the
    authors' scripts the centre is the sum over one point more than there are.
    """
    count = points.shape[1]
    low, high = points[0, 0], points[0, 0]
    for axis in range(3):
        if not abs(points[axis, count - 1]) < BOUND:
            return np.inf
        least, greatest = _extent(points[axis], count)
        low, high = min(low, least), max(high, greatest)
    wide = high - low
    if not 0.0 < wide < BOUND:
        return np.inf
    for axis in range(3):
        total = 0.0
        for n in range(count):
            points[axis, n] = np.true_divide(points[axis, n] - low, wide) * 2.0 - 1.0
            total += points[axis, n]
        centre = total / (count + 1)
        for n in range(count):
            points[axis, n] -= centre
    return wide


@kernel
def least_variance(points: Any) -> float:
    """Return the smallest variance along an axis."""
    count = points.shape[1]
    least = np.inf
    for axis in range(3):
        mean, squares = 0.0, 0.0
        for n in range(count):
            mean += points[axis, n]
        mean /= count
        for n in range(count):
            squares += (points[axis, n] - mean) ** 2
        least = min(least, squares / count)
    return least


@kernel
def draw_space(key: Any, fewest: int, most: int, reach: float, system: Any) -> int:
    """Draw a system of space; return its number of maps."""
    maps = fewest + below(key, 0, most - fewest + 1)
    for m in range(maps):
        s = system[m]
        for n in range(_SPACE):
            s[n] = reach * (2.0 * unit(key, 1 + _SPACE * m + n) - 1.0)
        s[12] = abs(
            s[0] * (s[4] * s[8] - s[5] * s[7])
            - s[1] * (s[3] * s[8] - s[5] * s[6])
            + s[2] * (s[3] * s[7] - s[4] * s[6])
        )
    _share_chances(system, maps)
    return maps


@kernel
def search_space(
    seed: int, class_id: int, fewest: int, most: int, reach: float, variance: float, tries: int,
    system: Any, chances: Any, chosen: Any, points: Any,
) -> Any:  # fmt: skip
    """Find the class's first system that varies along every axis: (maps, variance, tries)."""
    for attempt in range(tries):
        maps = draw_space(stream(seed, class_id, attempt, _SEARCH), fewest, most, reach, system)
        numbers(stream(seed, class_id, attempt, _GAME), chances)
        play_space(system[:maps], chances, chosen, points)
        if normalize(points) < BOUND:
            least = least_variance(points)
            if least > variance:
                return maps, least, attempt + 1
    return 0, 0.0, tries


@kernel
def _along(points: Any, rotation: Any, axis: int, shift: Any, out: Any) -> None:
    a, b, c = rotation[0, axis], rotation[1, axis], rotation[2, axis]
    xs, ys, zs = points[0], points[1], points[2]
    for n in range(len(out)):
        out[n] = a * xs[n] + b * ys[n] + c * zs[n] + shift


@kernel
def project(
    points: Any, rotation: Any, focal: Any, distance: Any, nearest: Any, side: int, ink: int,
    room: Any, pixels: Any, image: Any,
) -> None:  # fmt: skip
    """Write ``ink`` to the pixels of an image of side * side on which points fall in perspective.

    The camera looks at the origin from ``distance``: along column 0 of the rotation, with
    column 1 up and column 2 to the right. All float32, as on the authors' graphics card. Rows
    count from the bottom, as in their images. The image has a byte more, for what falls
    outside. ``room`` is for float32 of the points' shape, ``pixels`` for an int32 per point.
    """
    deep, up, right = room[0], room[1], room[2]
    _along(points, rotation, 0, distance, deep)
    _along(points, rotation, 1, np.float32(0), up)
    _along(points, rotation, 2, np.float32(0), right)
    half, one, edge = np.float32(0.5 * side), np.float32(1), np.float32(side)
    wide, outside = np.int32(side), np.int32(side * side)
    for n in range(len(pixels)):  # no branch: done in vectors
        scale = np.true_divide(focal, deep[n])
        column = (right[n] * scale + one) * half
        row = (up[n] * scale + one) * half
        seen = (deep[n] >= nearest) & (column >= 0) & (column < edge) & (row >= 0) & (row < edge)
        pixels[n] = np.int32(row) * wide + np.int32(column) if seen else outside
    image[:] = 0
    for n in range(len(pixels)):
        image[pixels[n]] = ink


@kernel
def draw_rotation(key: Any, out: Any) -> None:
    """Draw a rotation, each as likely as any other (Marsaglia 1972); (3, 3), float64."""
    n = 0
    first = second = 0.0
    a = b = c = d = 0.0
    while True:
        a, b = 2.0 * unit(key, n) - 1.0, 2.0 * unit(key, n + 1) - 1.0
        n += 2
        first = a * a + b * b
        if first < 1.0:
            break
    while True:
        c, d = 2.0 * unit(key, n) - 1.0, 2.0 * unit(key, n + 1) - 1.0
        n += 2
        second = c * c + d * d
        if 0.0 < second < 1.0:
            break
    ratio = np.sqrt((1.0 - first) / second)
    c, d = c * ratio, d * ratio
    out[0, 0], out[0, 1], out[0, 2] = (
        1 - 2 * (c * c + d * d),
        2 * (b * c - a * d),
        2 * (b * d + a * c),
    )
    out[1, 0], out[1, 1], out[1, 2] = (
        2 * (b * c + a * d),
        1 - 2 * (b * b + d * d),
        2 * (c * d - a * b),
    )
    out[2, 0], out[2, 1], out[2, 2] = (
        2 * (b * d - a * c),
        2 * (c * d + a * b),
        1 - 2 * (b * b + c * c),
    )
