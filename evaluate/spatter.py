"""Spatter of ImageNet-C: drops of water on the lens, or splashes of mud.

The authors' recipe with its published numbers, on numpy and scipy instead of OpenCV.
"""

from __future__ import annotations

import numpy as np

WATER = np.array((175, 238, 238)) / 255
MUD = np.array((63, 42, 20)) / 255
EMBOSS = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
"""Lights a drop from one side."""
WEAK, STRONG = 50, 150
"""Slopes from which on an edge goes on, and begins."""
FAR = 20
"""No distance from an edge counts for more."""
STEPS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.4), (1, 2, 2.1969), (2, 1, 2.1969))
"""Steps down and across, and how long they are: distances by Borgefors (CVGIP 34, 1986)."""


def spatter(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Add water (severities 0 to 2) or mud to an image, float64 (n, n, 3) from 0 to 1."""
    from scipy.ndimage import gaussian_filter

    mean, spread, smooth, least, strength, is_mud = (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    )[severity]
    noise = rng.normal(mean, spread, image.shape[:2])
    liquid = gaussian_filter(noise, smooth, mode="nearest")
    liquid[liquid < least] = 0
    if is_mud:
        cover = gaussian_filter((liquid > 0).astype(float), strength, mode="nearest")
        cover[cover < 0.8] = 0
        return image * (1 - cover[:, :, None]) + MUD * cover[:, :, None]
    drops = np.floor(np.clip(liquid, 0, 1) * 255)
    light = drops * _relief(drops)
    light *= strength / max(float(light.max()), 1e-9)
    return image + WATER * light[:, :, None]


def _relief(drops: np.ndarray) -> np.ndarray:
    """Return how drops, values of whole numbers to 255, catch the light: 0 to 255."""
    from scipy.ndimage import correlate, uniform_filter

    height = uniform_filter(_distances(edges(drops)), 3, mode="mirror")
    height = _equalised(np.floor(height + 1e-4).astype(np.uint8))
    lit = np.clip(correlate(height.astype(float), EMBOSS, mode="mirror"), 0, 255)
    return np.round(uniform_filter(lit, 3, mode="mirror"))


def _distances(found: np.ndarray) -> np.ndarray:
    """Return how far the nearest place that is True lies, at most FAR, in STEPS."""
    height, width = found.shape
    away = np.full((height + 4, width + 4), float(FAR))
    inner = away[2:-2, 2:-2]
    inner[found] = 0
    while True:
        before = inner.copy()
        for down, across, length in STEPS:
            for rows, columns in {(down, across), (-down, across), (down, -across),
                                  (-down, -across)}:  # fmt: skip
                there = away[2 + rows : 2 + rows + height, 2 + columns : 2 + columns + width]
                np.minimum(inner, there + length, out=inner)
        if np.array_equal(before, inner):
            return before


def edges(values: np.ndarray) -> np.ndarray:
    """Return where edges are, bool (n, m), by Canny's method (IEEE PAMI 8:6, 1986).

    Slopes are Sobel's, their size the sum of both; an edge is thinned to the steepest, and one
    that is not steep itself belongs to an edge if it is connected to a steep one.
    """
    from scipy.ndimage import label, sobel

    down, across = (sobel(values, axis=axis, mode="nearest") for axis in (0, 1))
    size = np.abs(down) + np.abs(across)
    padded = np.pad(size, 1)

    def beside(rows: int, columns: int) -> np.ndarray:
        height, width = size.shape
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    tangent = np.tan(np.pi / 8)
    level = np.abs(down) < tangent * np.abs(across)
    upright = np.abs(across) < tangent * np.abs(down)
    falling = (down >= 0) == (across >= 0)
    steepest = np.select(
        [level, upright, falling],
        [
            (size > beside(0, -1)) & (size >= beside(0, 1)),
            (size > beside(-1, 0)) & (size >= beside(1, 0)),
            (size > beside(-1, -1)) & (size > beside(1, 1)),
        ],
        (size > beside(-1, 1)) & (size > beside(1, -1)),
    )
    candidates = steepest & (size > WEAK)
    found, _ = label(candidates, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    parts = np.asarray(found, np.intp)
    strong = np.zeros(int(parts.max()) + 1, bool)
    strong[np.unique(parts[candidates & (size > STRONG)])] = True
    strong[0] = False
    return strong[parts]


def _equalised(values: np.ndarray) -> np.ndarray:
    """Spread whole values, uint8, so that each level from 0 to 255 has about as many pixels."""
    counts = np.bincount(values.ravel(), minlength=256)
    first = int(np.flatnonzero(counts)[0])
    rest = values.size - counts[first]
    if rest == 0:
        return values
    below = np.cumsum(counts) - counts[first]
    return np.round(np.maximum(below, 0) * (255 / rest)).astype(np.uint8)[values]
