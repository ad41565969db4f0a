"""Frost of ImageNet-C, over textures that are grown here.

The paper lays crops of photographs of frosted glass over an image. Those are not shipped: a texture
is grown for each image instead, of fern-like crystals that meet each other, with the lightness,
the spread and the blue tint of such photographs. The shares of image and frost are the published
ones, so scores are like ImageNet-C's, but not the same.
"""

from __future__ import annotations

import math

import numpy as np

from .plasma import plasma

FERNS = 60
ANGLE = math.pi / 3
"""Ice has six-fold symmetry: branches leave a stem at 60 degrees, and twigs a branch."""
TINT = (-0.07, 0.01, 0.06)
"""How far red, green and blue of the photographs lie from grey on average."""
LIGHTNESS = (0.42, 0.8)
"""The means of the photographs, from the darkest to the lightest."""
SPREAD = (0.08, 0.17)
"""Their standard deviations."""


def frost(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Mix an image, float64 (n, n, 3) from 0 to 1, with ice grown on it."""
    mine, ice = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity]
    return mine * image + ice * texture(image.shape[0], rng)


def texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Grow frost: float64 (side, side, 3) from 0 to 1, another for each state of ``rng``."""
    grey = _standard(_ferns(side, rng)) + 0.8 * _standard(_cloud(side, rng))
    grey = rng.uniform(*LIGHTNESS) + rng.uniform(*SPREAD) * _standard(grey)
    return np.clip(grey[:, :, None] + np.array(TINT), 0, 1)


def _ferns(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return ferns, (side, side): each has the pixels that lie nearer to it than to another."""
    bent = [side / 3 * (_cloud(side, rng) - 0.5) for _ in range(2)]
    places = np.mgrid[:side, :side].astype(np.float32) + np.array(bent, np.float32)
    feet = rng.uniform(-0.1, 1.1, (FERNS, 2)) * side
    heading = rng.uniform(0, 2 * math.pi, FERNS)
    along, beside, nearest = (np.full((side, side), np.inf, np.float32) for _ in range(3))
    owner = np.zeros((side, side), np.intp)
    # Python's own numbers keep the arrays float32.
    for number, ((down, across), angle) in enumerate(
        zip(feet.tolist(), heading.tolist(), strict=True)
    ):
        y, x = places[0] - down, places[1] - across
        u = x * math.cos(angle) + y * math.sin(angle)
        v = np.abs(y * math.cos(angle) - x * math.sin(angle))
        away = np.abs(u) + 2.5 * v  # ferns are longer than broad
        closer = away < nearest
        for all_of_them, its in ((along, u), (beside, v), (nearest, away)):
            np.copyto(all_of_them, its, where=closer)
        owner[closer] = number
    # A branch is where this is whole: it leaves the stem at ANGLE, on both sides.
    width = rng.uniform(7, 16, FERNS)[owner]
    rough = 1.5 * plasma(_power(side), 1.3, rng)[:side, :side]
    branches = _ridges((along - beside / math.tan(ANGLE)) / width + rough)
    twigs = _ridges((along + beside / math.tan(ANGLE)) / (0.4 * width) + 2 * rough)
    stems = np.exp(-np.square(beside / 1.2))
    light = rng.uniform(0.4, 1.3, FERNS)[owner]
    return light * (1.3 * branches + 0.9 * twigs + 0.8 * stems + 0.8 * rough)


def _ridges(phase: np.ndarray) -> np.ndarray:
    """Return 1 where the phase is whole, falling to 0 between."""
    return np.abs(2 * (phase - np.floor(phase)) - 1) ** 4


def _cloud(side: int, rng: np.random.Generator) -> np.ndarray:
    return plasma(_power(side), 1.8, rng)[:side, :side]


def _power(side: int) -> int:
    """Return the power of 2 that is not less."""
    return 1 << (side - 1).bit_length()


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-9)
