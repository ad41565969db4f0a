"""Find the text in an image with a network of the DB family, from an ONNX file.

Source: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization" (arXiv
1911.08947); written from the paper. The network gives each pixel a probability to lie in the core
of a line of text; cores are the lines shrunk. Where it is above a limit, connected pixels are one
line, which stays if its mean probability is high, and grows back by its area over its perimeter
times a factor; to all sides as a square does, so that the corners of a line are covered too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingError, RunError
from ...pools.images import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 640
"""Pixels of an image's longer side as the network sees it."""

_MULTIPLE = 32
_PIXEL, _LINE, _GROWTH = 0.3, 0.5, 1.6
_MEAN = _SPREAD = 0.5
_MAX_MODEL = 512 << 20

Mask = NDArray[np.bool_]


def identity() -> dict[str, Any]:
    """Return what the mask of an image depends on, the network aside."""
    return {"side": SIDE, "pixel": _PIXEL, "line": _LINE, "growth": _GROWTH}


class TextDetector:
    """A network that was loaded from an ONNX file; it takes (1, 3, h, w), blue first, -1 to 1.

    Raises MissingError without onnxruntime, DataError for what is no such network.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingError(
                "finding text needs onnxruntime, which is not installed: pip install -e '.[text]'"
            ) from None
        if path.stat().st_size > _MAX_MODEL:
            raise DataError(f"{path}: more than {_MAX_MODEL >> 20} MB, no detector of text")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.intra_op_num_threads = 1  # several images are looked at at the same time
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            (given,) = self._session.get_inputs()
            self._name = given.name
        except Exception as error:  # noqa: BLE001  the library has a class for each of its codes
            raise DataError(f"{path}: no network of one input: {_one_line(error)}") from None

    def find(self, image: Image) -> Mask:
        """Return where an RGB image shows text, shape (height, width)."""
        from PIL.Image import Resampling

        factor = SIDE / max(image.size)
        width, height = (
            max(_MULTIPLE, round(side * factor / _MULTIPLE) * _MULTIPLE) for side in image.size
        )
        seen = np.asarray(image.resize((width, height), Resampling.BILINEAR), np.float32)
        blue_first = (seen[None, :, :, ::-1] / 255 - _MEAN) / _SPREAD
        given = np.ascontiguousarray(blue_first.transpose(0, 3, 1, 2), np.float32)
        return self._fit(text_lines(self._probabilities(given)), image.size)

    def _probabilities(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            found = np.asarray(self._session.run(None, {self._name: given})[0])
        except Exception as error:  # noqa: BLE001
            raise RunError(f"{self._path}: cannot look at an image: {_one_line(error)}") from None
        if found.shape != (1, 1, *given.shape[2:]) or not np.isfinite(found).all():
            raise DataError(
                f"{self._path}: gives an array of shape {found.shape} for an image of "
                f"{given.shape}, expected one finite number per pixel"
            )
        return found[0, 0]

    @staticmethod
    def _fit(mask: Mask, size: tuple[int, int]) -> Mask:
        """Enlarge or shrink a mask to the size (width, height) of the image."""
        assert size[0] * size[1] <= MAX_PIXELS
        rows = np.arange(size[1]) * mask.shape[0] // size[1]
        columns = np.arange(size[0]) * mask.shape[1] // size[0]
        return mask[rows[:, None], columns[None, :]]


def text_lines(probabilities: NDArray[np.floating[Any]]) -> Mask:
    """Return the pixels of lines of text, from probabilities of their cores, shape (h, w)."""
    from scipy import ndimage

    labels = connected(probabilities > _PIXEL)
    found = np.zeros(probabilities.shape, bool)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[place] == number
        if probabilities[place][inside].mean(dtype=np.float64) < _LINE:
            continue
        height, width = inside.shape
        reach = inside.sum() * _GROWTH / (2 * (height + width))
        around = grown(place, int(np.ceil(reach)), found.shape)
        core = labels[around] == number
        found[around] |= np.asarray(ndimage.distance_transform_cdt(~core, "chessboard")) <= reach
    return found


def connected(mask: Mask) -> NDArray[np.int32]:
    """Number the connected parts of a mask from 1, shape (h, w); corners connect too."""
    from scipy import ndimage

    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), labels)
    return labels


def grown(
    place: tuple[slice, ...], by: int, shape: tuple[int, ...]
) -> tuple[slice, ...]:  # fmt: skip
    """Return the part of an array of ``shape`` that reaches so far around a part of it."""
    return tuple(
        slice(max(0, side.start - by), min(most, side.stop + by))
        for side, most in zip(place, shape, strict=True)
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
