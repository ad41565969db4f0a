"""Clouds: random fields that are rough at every scale."""

from __future__ import annotations

import numpy as np


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return diamond-square noise (side, side) from 0 to 1 on a torus; ``side`` is a power of 2.

    Fournier, Fussell and Carpenter 1982.
    """
    grid = np.zeros((side, side))
    step, wibble = side, 100.0

    def near(total: np.ndarray) -> np.ndarray:
        return total / 4 + wibble * rng.uniform(-wibble, wibble, total.shape)

    while step > 1:
        half = step // 2
        corners = grid[::step, ::step]
        sums = corners + np.roll(corners, -1, 0)
        grid[half::step, half::step] = middles = near(sums + np.roll(sums, -1, 1))
        sides = middles + np.roll(middles, 1, 0)
        grid[::step, half::step] = near(sides + corners + np.roll(corners, -1, 1))
        sides = middles + np.roll(middles, 1, 1)
        grid[half::step, ::step] = near(sides + corners + np.roll(corners, -1, 0))
        step, wibble = half, wibble / decay
    grid -= grid.min()
    return grid / max(grid.max(), 1e-12)
