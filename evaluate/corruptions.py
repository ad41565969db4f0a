"""Images corrupted as in ImageNet-C, at five severities, for any task.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019, arXiv:1903.12261). The severities are those of the published data set.
They were tuned on 224 x 224 pixels, so an image is first cut to its central square and brought
to that size, as CLIP's own preprocessing would do. What is random follows from the sample's key.

All 15 of the paper are here and the 4 extra ones. Frost is grown instead of photographed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError, suggest
from ..pools.images import decode
from . import distortions as d
from .frost import frost
from .spatter import spatter

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 224
SEVERITIES = 5

Distortion = Callable[[np.ndarray, np.random.Generator, int], np.ndarray]
"""Takes an image, float64 (224, 224, 3) from 0 to 1, and a severity from 0 to 4."""

KINDS: dict[str, Distortion] = {
    "gaussian_noise": d.gaussian_noise,
    "shot_noise": d.shot_noise,
    "impulse_noise": d.impulse_noise,
    "speckle_noise": d.speckle_noise,
    "defocus_blur": d.defocus_blur,
    "glass_blur": d.glass_blur,
    "motion_blur": d.motion_blur,
    "zoom_blur": d.zoom_blur,
    "gaussian_blur": d.gaussian_blur,
    "snow": d.snow,
    "frost": frost,
    "fog": d.fog,
    "brightness": d.brightness,
    "spatter": spatter,
    "contrast": d.contrast,
    "saturate": d.saturate,
    "elastic_transform": d.elastic_transform,
    "pixelate": d.pixelate,
    "jpeg_compression": d.jpeg_compression,
}


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption and its severity, 1 to 5."""

    kind: str
    severity: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.severity}"

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """Read ``KIND:SEVERITY``. Raises UsageError for what there is not."""
        kind, _, severity = text.partition(":")
        if kind not in KINDS:
            raise UsageError(
                f"unknown corruption {kind!r}{suggest(kind, list(KINDS))}; "
                f"there are: {', '.join(KINDS)}"
            )
        if severity not in [str(number) for number in range(1, SEVERITIES + 1)]:
            raise UsageError(f"--corrupt {text}: expected {kind}: and a severity from 1 to 5")
        return cls(kind, int(severity))

    def of(self, image: bytes, key: str) -> Image:
        """Decode an image and corrupt it: RGB, 224 x 224; the same key, the same randomness.

        Raises DataError for bytes that are no sound image.
        """
        from PIL import Image

        pixels = np.asarray(_square(decode(image)), np.float64) / 255
        seed = hashlib.sha256(f"{self}/{key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:16], "little"))
        found = KINDS[self.kind](pixels, rng, self.severity - 1)
        return Image.fromarray((np.clip(found, 0, 1) * 255).astype(np.uint8))


def _square(image: Image) -> Image:
    """Return the central square at SIDE x SIDE."""
    from PIL import Image

    short = min(image.size)
    left, top = ((side - short) / 2 for side in image.size)
    box = (left, top, left + short, top + short)
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
