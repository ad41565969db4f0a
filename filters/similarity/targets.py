"""How a sample's features lie to those of a target set.

A target set is an asset: the rows of one file or of a folder of files. Files in ``.npy`` are
mapped, so of a large set only the rows at hand are in memory.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..assets import digest_of, parts
from ..contract import Batch, Scorer
from ..matrices import read_matrix
from ..nearest import usable_device
from ..products import products
from ..vectors import Floats, unit

_ROWS = 4096
"""How many rows of the target set are compared at a time."""


class Targets:
    """The rows of a target set at length one, in blocks; those of no length are left out.

    With ``share`` below 1 it is every so-manieth row, spread evenly over the set.
    """

    def __init__(self, path: Path, share: float = 1.0) -> None:
        self.path = path
        self._matrices = [read_matrix(file) for file in parts(path)]
        if not self._matrices:
            raise DataError(f"{path}: an empty folder; expected files of features")
        widths = {matrix.shape[1] for matrix in self._matrices}
        if len(widths) > 1:
            raise DataError(f"{path}: files of features of {' and '.join(map(str, sorted(widths)))}"
                            " numbers each; they are of different models")  # fmt: skip
        self.dimension = widths.pop()
        total = sum(map(len, self._matrices))
        wanted = max(1, int(total * share))
        self._places = np.arange(wanted, dtype=np.int64) * total // wanted

    def blocks(self) -> Iterator[Floats]:
        """Yield the rows, shape (at most 4096, dimension)."""
        first = 0
        for matrix in self._matrices:
            inside = self._places[(self._places >= first) & (self._places < first + len(matrix))]
            inside -= first
            first += len(matrix)
            for start in range(0, len(inside), _ROWS):
                rows, usable = unit(matrix[inside[start : start + _ROWS]])
                yield rows[usable]


@functools.lru_cache(maxsize=1)
def _load(path: Path, share: float) -> Targets:
    return Targets(path, share)


class TargetScorer(Scorer):
    """Compares features with those of a target set, all at length one."""

    asset = "target_embeddings"

    def __init__(self, path: Path, features: str, share: float = 1.0, device: str = "cpu") -> None:
        self._path, self._share, self._device = path, share, device
        self.features = (features,)
        self.batch_size = _ROWS

    def identity(self) -> dict[str, Any]:
        """Name the features, and the target set by digest."""
        about = {"features": self.features[0], "targets": digest_of(self.asset, self._path)}
        return about if self._share == 1 else {**about, "share": self._share}

    def score(self, batch: Batch) -> Sequence[float | None]:
        """Return one value per sample; None for features that are no numbers or of no length."""
        vectors = batch.features[self.features[0]]
        if vectors.shape[1] != self.targets.dimension:
            raise DataError(
                f"the pool's features {self.features[0]} have {vectors.shape[1]} numbers each, but "
                f"the target set in {self._path} has {self.targets.dimension}: they are of other "
                "features"
            )
        rows, usable = unit(vectors)
        values: list[float | None] = [None] * len(rows)
        places = np.flatnonzero(usable)
        found = self.compare(rows[places]).astype(np.float32)
        for place, value in zip(places.tolist(), found.tolist(), strict=True):
            values[place] = value
        return values

    @abstractmethod
    def compare(self, rows: Floats) -> NDArray[np.floating[Any]]:
        """Return one value per row of unit vectors, shape (n, dimension) to (n,)."""

    @property
    def targets(self) -> Targets:
        """The target set."""
        return _load(self._path, self._share)


class LargestSimilarity(TargetScorer):
    """The cosine of a sample and the nearest of a target set, or the largest in absolute value."""

    name = "largest_similarity"

    def __init__(
        self, path: Path, features: str, share: float = 1.0, device: str = "cpu",
        *, absolute: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(path, features, share, device)
        self._absolute = absolute
        if absolute:
            self.name = "largest_absolute_similarity"

    def compare(self, rows: Floats) -> NDArray[np.floating[Any]]:
        """Return the largest product with any row of the target set."""
        largest = self._with_torch if self._on != "cpu" else self._with_numpy
        return largest(rows)

    def _with_numpy(self, rows: Floats) -> Floats:
        best = np.full(len(rows), -np.inf, np.float32)
        for block in self.targets.blocks():
            found = products(rows, block)
            if self._absolute:
                np.abs(found, out=found)
            np.maximum(best, found.max(axis=1, initial=-np.inf), out=best)
        return best

    def _with_torch(self, rows: Floats) -> Floats:
        import torch

        with torch.inference_mode():
            here = torch.from_numpy(rows).to(self._on)
            best = torch.full((len(rows),), -torch.inf, device=self._on)
            for block in self._blocks:
                found = here @ block.T
                best = torch.maximum(best, (found.abs() if self._absolute else found).amax(1))
            return best.cpu().numpy()

    @functools.cached_property
    def _on(self) -> str:
        return usable_device(self._device)

    @functools.cached_property
    def _blocks(self) -> list[Any]:
        """The target set on the device: over and over again, copying would take longer."""
        import torch

        return [torch.from_numpy(b).to(self._on) for b in self.targets.blocks() if len(b)]


class VarianceAlignment(TargetScorer):
    """The mean of the squared cosines of a sample with all of a target set, or their norm."""

    name = "variance_alignment"

    def __init__(self, path: Path, features: str, share: float = 1.0, *, norm: bool = False):
        super().__init__(path, features, share)
        self._norm = norm
        if norm:
            self.name = "similarity_norm"

    def compare(self, rows: Floats) -> NDArray[np.floating[Any]]:
        """Return x S x for each row x, with S the mean of t t' over all rows t; or its norm."""
        covariance, count = self._covariance
        found = quadratic(rows, covariance)
        return np.sqrt(found * count) if self._norm else found

    @functools.cached_property
    def _covariance(self) -> tuple[NDArray[np.float64], int]:
        total, count = np.zeros((self.targets.dimension,) * 2), 0
        for block in self.targets.blocks():
            total += outer(block)
            count += len(block)
        if not count:
            raise DataError(f"{self._path}: no row has a length")
        return total / count, count


def outer(rows: Floats) -> NDArray[np.float64]:
    """Return the sum of x x' over the rows x, shape (n, d) to (d, d)."""
    return products(rows.T, rows.T).astype(np.float64)


def quadratic(rows: Floats, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x M x for each row x, shape (n, d) to (n,); M is positive semi-definite."""
    found = products(rows, matrix.astype(np.float32))
    return np.maximum(np.einsum("nd,nd->n", found, rows, dtype=np.float64), 0)
