"""The corruptions of ImageNet-C themselves; see ``corruptions.py`` for the paper.

Each takes an image, float64 (n, n, 3) from 0 to 1, a generator and a severity from 0 to 4, and
returns an image whose values may lie outside.
"""

from __future__ import annotations

import io
import math

import numpy as np

from .plasma import plasma

# -- noise --------------------------------------------------------------------------------------


def gaussian_noise(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Add normal noise, as of a sensor in low light."""
    return image + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity], image.shape)


def shot_noise(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Count each value in Poisson-distributed quanta, as light comes in photons."""
    quanta = (60, 25, 12, 5, 3)[severity]
    return rng.poisson(image * quanta) / quanta


def impulse_noise(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Set a share of the values to 0 or 1: salt and pepper in colour."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity]
    struck = rng.random(image.shape) < share
    return np.where(struck, rng.integers(0, 2, image.shape), image)


def speckle_noise(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Add normal noise that grows with the value."""
    return image * (1 + rng.normal(0, (0.15, 0.2, 0.35, 0.45, 0.6)[severity], image.shape))


# -- blur ---------------------------------------------------------------------------------------


def gaussian_blur(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Average with normal weights."""
    return _smooth(image, (1, 2, 3, 4, 6)[severity])


def defocus_blur(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Average over a disc with softened edge: a lens out of focus."""
    from scipy.ndimage import gaussian_filter
    from scipy.signal import fftconvolve

    radius, edge = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity]
    reach = max(8, radius)
    x, y = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    kernel = gaussian_filter(disc / disc.sum(), edge, radius=1 if radius <= 8 else 2)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    return fftconvolve(padded, kernel[:, :, None] / kernel.sum(), "valid", axes=(0, 1))


def glass_blur(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Swap pixels with near ones, between two smoothings: frosted glass."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity]
    side = image.shape[0]
    at = list(range(side * side))
    for _ in range(rounds):
        steps = rng.integers(-reach, reach, (side, side, 2)).tolist()
        for row in range(side - reach, reach, -1):
            for column in range(side - reach, reach, -1):
                across, down = steps[row - 1][column - 1]
                here = (row - 1) * side + column - 1
                there = here + down * side + across
                at[here], at[there] = at[there], at[here]
    shuffled = _smooth(image, sigma).reshape(-1, 3)[at].reshape(image.shape)
    return _smooth(np.clip(shuffled, 0, 1), sigma)


def motion_blur(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Smear along a direction: the camera moved."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity]
    return _smear(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Average over enlargements about the centre: the camera came nearer."""
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity]
    factors = np.arange(1, end, step)
    total = image + sum(_zoom(image, factor) for factor in factors)
    return total / (len(factors) + 1)


# -- weather ------------------------------------------------------------------------------------


def snow(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Whiten the scene and let smeared flakes fall over it."""
    mean, spread, zoom, least, radius, sigma, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity]
    flakes = _zoom(rng.normal(mean, spread, image.shape[:2])[:, :, None], zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _smear(flakes, radius, sigma, rng.uniform(-135, -45))
    grey = (image @ (0.299, 0.587, 0.114))[:, :, None]
    white = share * image + (1 - share) * np.maximum(image, grey * 1.5 + 0.5)
    return white + flakes + np.rot90(flakes, 2)


def fog(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Add a cloud of diamond-square noise."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity]
    side, most = image.shape[0], image.max()
    cloud = plasma(1 << (side - 1).bit_length(), decay, rng)[:side, :side, None]
    return (image + amount * cloud) * most / (most + amount)


def brightness(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Raise the value of HSV."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.clip(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity], 0, 1)
    return np.where(value > 0, image / np.where(value > 0, value, 1), 1) * brighter


# -- digital ------------------------------------------------------------------------------------


def contrast(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Bring all values nearer to the mean of their channel."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity] + mean


def saturate(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Change the saturation of HSV; grey has the hue 0, which is red."""
    factor, more = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity]
    value = image.max(axis=2, keepdims=True)
    span = value - image.min(axis=2, keepdims=True)
    grey = span == 0
    depth = np.where(grey, (0.0, 1.0, 1.0), (value - image) / np.where(grey, 1, span))
    saturation = np.where(value > 0, span / np.where(value > 0, value, 1), 0)
    return value * (1 - depth * np.clip(saturation * factor + more, 0, 1))


def elastic_transform(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Stretch by a random affine map, then by a smooth random field."""
    from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

    length, sigma, jitter = (
        (488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    )[severity]  # fmt: skip
    side = image.shape[0]
    centre, reach = side // 2, side // 3
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * reach + centre
    moved = corners + rng.uniform(-jitter, jitter, corners.shape)
    # Where each point of the result comes from: moved @ matrix + offset = corners.
    solved = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
    fields = [
        gaussian_filter(rng.uniform(-1, 1, (side, side)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    rows, columns = np.mgrid[:side, :side] + length * np.array(fields)
    stretched = [
        affine_transform(image[:, :, i], solved[:2].T, solved[2], order=1, mode="mirror")
        for i in range(3)
    ]
    return np.stack(
        [map_coordinates(c, [rows, columns], order=1, mode="reflect") for c in stretched], axis=2
    )


def pixelate(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Make it small and large again, as boxes."""
    from PIL import Image

    side = image.shape[0]
    small = int(side * (0.6, 0.5, 0.4, 0.3, 0.25)[severity])
    box = Image.Resampling.BOX
    picture = _picture(image).resize((small, small), box).resize((side, side), box)
    return np.asarray(picture) / 255


def jpeg_compression(image: np.ndarray, rng: np.random.Generator, severity: int) -> np.ndarray:
    """Compress it hard."""
    from PIL import Image

    buffer = io.BytesIO()
    _picture(image).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity])
    return np.asarray(Image.open(buffer)) / 255


# -- tools --------------------------------------------------------------------------------------


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _smear(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Average along a ray from each pixel, weights falling as half a normal curve."""
    side = image.shape[0]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    total = np.zeros_like(image)
    for step, weight in zip(steps, weights, strict=True):
        down, across = (math.ceil(step * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
        rows = np.clip(np.arange(side) + down, 0, side - 1)
        columns = np.clip(np.arange(side) + across, 0, side - 1)
        total += weight * image[rows][:, columns]
    return total


def _zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle to the whole, bilinear."""
    from PIL import Image

    side = image.shape[0]
    inner = side / factor
    low = (side - inner) / 2
    box = (low, low, low + inner, low + inner)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image[:, :, i].astype(np.float32)).resize(
                    (side, side), Image.Resampling.BILINEAR, box=box
                )
            )
            for i in range(image.shape[2])
        ],
        axis=2,
    ).astype(np.float64)


def _picture(image: np.ndarray):
    from PIL import Image

    return Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))
