"""Score images by a small network on their features: how beautiful, how unsafe.

Source: LAION's aesthetic predictor (Schuhmann et al., "LAION-5B", arXiv 2210.08402), a network
without activations on CLIP ViT-L/14 image features, marks of 1 to 10; and DataComp's NSFW filter
(arXiv 2304.14108, appendix E), a network on the same features that drops from 0.1. Written from the
papers; the weights are theirs and are given as a file: `.safetensors`, `.npz`, or a state
dictionary of torch. Its matrices are taken in the order of their names, each with the bias of the
same name.
"""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import sha256_file
from ...errors import DataError, MissingError, UnsafeInputError
from ..contract import Batch, Decision, Filter, Scorer, View, sql_number
from ..products import products
from ..ranking import NO_FEATURES
from ..vectors import Floats, unit

Activation = Literal["none", "relu"]
Output = Literal["none", "sigmoid"]
Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]

_MAX_BYTES = 256 << 20
_DIGITS = re.compile(r"(\d+)")


class Aesthetic(Filter):
    """Keep images that a network on their features finds beautiful enough."""

    not_reported = "LAION's paper makes subsets with it that are not of CommonPool"

    weights_file: str = Field(..., description="weights of the network")
    min: float = Field(5.0, description="lowest mark to keep")
    features: str = Field("l14_img", description="image features that the network is for")
    activation: Activation = Field("none", description="between layers: none or relu")

    def scorers(self) -> list[Scorer]:
        """Ask the network."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the high marks."""
        mark = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{mark} IS NOT NULL"),
            Decision("not_beautiful", f"{mark} >= {sql_number(self.min)}::FLOAT"),
        ]

    def _scorer(self) -> Scorer:
        path = Path(self.weights_file)
        return HeadScorer("aesthetic", path, self.features, self.activation, "none")


class Nsfw(Filter):
    """Drop images that a network on their features takes for unsafe."""

    not_reported = "CommonPool was freed of unsafe images before it was published"

    weights_file: str = Field(..., description="weights of the network")
    max: float = Field(0.1, description="drop above this")
    features: str = Field("l14_img", description="image features that the network is for")
    activation: Activation = Field("relu", description="between layers: none or relu")
    output: Output = Field("sigmoid", description="after the last layer: none or sigmoid")

    def scorers(self) -> list[Scorer]:
        """Ask the network."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the low ones."""
        unsafe = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{unsafe} IS NOT NULL"),
            Decision("unsafe", f"{unsafe} <= {sql_number(self.max)}::FLOAT"),
        ]

    def _scorer(self) -> Scorer:
        path = Path(self.weights_file)
        return HeadScorer("nsfw", path, self.features, self.activation, self.output)


class HeadScorer(Scorer):
    """Gives what a small network makes of features at length one, float32."""

    batch_size = 4096

    def __init__(
        self, name: str, path: Path, features: str, activation: Activation, output: Output
    ) -> None:
        if not path.is_file():
            raise MissingError(f"{name}: no weights at {path}")
        self.name, self.features = name, (features,)
        self._path, self._activation, self._output = path, activation, output

    def identity(self) -> dict[str, Any]:
        """Name the features, the weights by digest, and what is between layers."""
        return {
            "features": self.features[0],
            "weights": sha256_file(self._path),
            "activation": self._activation,
            "output": self._output,
        }

    def score(self, batch: Batch) -> Sequence[float | None]:
        """Return one value per sample; None for features that are no numbers or of no length."""
        rows, usable = unit(batch.features[self.features[0]])
        found = self._run(rows[usable])
        values: list[float | None] = [None] * len(rows)
        for place, value in zip(np.flatnonzero(usable).tolist(), found.tolist(), strict=True):
            values[place] = value if np.isfinite(value) else None
        return values

    def _run(self, rows: Floats) -> Floats:
        layers = chained(load(self._path), rows.shape[1], self._path)
        for number, (weight, bias) in enumerate(layers):
            rows = products(rows, weight.T) + bias
            if self._activation == "relu" and number < len(layers) - 1:
                rows = np.maximum(rows, 0)
        found = rows[:, 0].astype(np.float64)
        if self._output == "sigmoid":
            # As tanh, it cannot overflow.
            found = 0.5 * (1 + np.tanh(found / 2))
        return found.astype(np.float32)


def chained(layers: Layers, dimension: int, path: Path) -> Layers:
    """Return layers as matrices (in, out) and biases (out,) that follow on one another.

    Both (out, in), as torch has it, and (in, out) are understood. Raises DataError where the
    sizes do not fit, or not one number comes out.
    """
    found, width = [], dimension
    for weight, bias in layers:
        matrix = weight.T if weight.shape[1] == width else weight
        if matrix.shape[0] != width or bias.shape != (matrix.shape[1],):
            raise DataError(
                f"{path}: a layer of shape {weight.shape} with {bias.size} biases cannot take "
                f"{width} numbers; is it for other features?"
            )
        found.append((matrix, bias))
        width = matrix.shape[1]
    if width != 1:
        raise DataError(f"{path}: the last layer gives {width} numbers, expected one")
    return found


@functools.lru_cache(maxsize=1)
def load(path: Path) -> Layers:
    """Read the matrices of a file, in the natural order of their names, each with its bias."""
    if path.stat().st_size > _MAX_BYTES:
        raise UnsafeInputError(f"{path}: larger than any such network; not read")
    tensors = _read_npz(path) if path.suffix == ".npz" else _read_tensors(path)
    found: Layers = []
    for name in sorted(tensors, key=_natural):
        stem = re.sub(r"(weight|kernel)$", "", name)
        if tensors[name].ndim == 2:
            if f"{stem}bias" not in tensors:
                raise DataError(f"{path}: {name} has no {stem}bias beside it")
            found.append(
                (tensors[name].astype(np.float32), tensors[f"{stem}bias"].astype(np.float32))
            )
    if not found or not all(np.isfinite(array).all() for layer in found for array in layer):
        raise DataError(f"{path}: no matrices of finite numbers in it")
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = _DIGITS.split(name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_BYTES:
            raise UnsafeInputError(f"{path}: {size:,} bytes once unpacked; not read")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as npz: {error}") from None


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    from ...pools.checkpoints import read_checkpoint

    return {name: tensor.float().numpy() for name, tensor in read_checkpoint(path).items()}
