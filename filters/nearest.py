"""Which of many centroids is nearest to a vector: the one of the largest inner product.

Products are made in float32, block by block, with BLAS or on a GPU. Where the best two are
closer than float32 can tell, the vector is compared again in float64, and among equals the first
centroid is taken: so the answer does not depend on machine, threads or batch.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pools.devices import resolve_device

_ROWS = 4096
"""How many vectors and how many centroids are multiplied at a time: 64 MB of products."""

_UNSURE = 512
"""How many vectors are multiplied in float64 at a time."""

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the system shows where there is a GPU: torch, slow to import, is not asked without."""

_Floats = NDArray[np.float32]
_Ids = NDArray[np.int64]


_in_partitions = contextvars.ContextVar("_in_partitions", default=False)


@contextlib.contextmanager
def in_partitions() -> Iterator[None]:
    """Let ``auto`` be the CPU in the block.

    Of many workers some may have a GPU, and its last bits are others: what is kept must not depend
    on who works on which file.
    """
    token = _in_partitions.set(True)
    try:
        yield
    finally:
        _in_partitions.reset(token)


def asks_for_gpu(device: str) -> bool:
    """Tell whether it was said that a GPU is to be used, and not left to the machine."""
    return device.startswith("cuda")


def usable_device(device: str) -> str:
    """Return the device to use; ``auto`` is the GPU if there is one, but not ``in_partitions``."""
    absent = device == "auto" and (
        _in_partitions.get() or not any(Path(path).exists() for path in _GPU_DEVICES)
    )
    return "cpu" if absent or device == "cpu" else resolve_device(device)


class Nearest:
    """Finds the nearest of centroids, shape (k, d), taken as float32."""

    def __init__(self, centroids: NDArray[np.floating[Any]], device: str = "auto") -> None:
        self.centroids = np.ascontiguousarray(centroids, np.float32)
        self.device = usable_device(device)
        self._reach = np.sqrt(_squares(self.centroids).max())

    def of(self, vectors: NDArray[np.floating[Any]]) -> _Ids:
        """Return the number of the nearest centroid of each vector, shape (n, d) to (n,)."""
        found = np.empty(len(vectors), np.int64)
        unsure = np.empty(len(vectors), bool)
        for start in range(0, len(vectors), _ROWS):
            part = np.asarray(vectors[start : start + _ROWS], np.float32)
            here = slice(start, start + len(part))
            found[here], unsure[here] = self._of_block(part)
        # Not in each block: to make float64 of the centroids takes longer than to multiply.
        again = np.flatnonzero(unsure)
        for start in range(0, len(again), _UNSURE):
            few = again[start : start + _UNSURE]
            found[few] = _exactly(np.asarray(vectors[few], np.float32), self.centroids)
        return found

    def _of_block(self, vectors: _Floats) -> tuple[_Ids, NDArray[np.bool_]]:
        """Return the nearest centroids in float32, and whether that is too coarse."""
        best_two = _best_two if self.device == "cpu" else self._best_two_on_device
        ids, gap = best_two(vectors, self.centroids)
        # Twice the most by which a sum of d products in float32 can be wrong.
        width = 2 * vectors.shape[1] * 2.0**-24
        return ids, gap <= width * np.sqrt(_squares(vectors)) * self._reach

    def _best_two_on_device(self, vectors: _Floats, _: _Floats) -> tuple[_Ids, _Floats]:
        return best_two_with_torch(vectors, self._on_device)

    @functools.cached_property
    def _on_device(self) -> Any:
        import torch

        return torch.from_numpy(self.centroids).to(self.device)


def _squares(rows: _Floats) -> _Floats:
    return np.einsum("nd,nd->n", rows, rows)


def _best_two(vectors: _Floats, centroids: _Floats) -> tuple[_Ids, _Floats]:
    """Return the nearest centroid in float32, and how far ahead of the next it is."""
    rows = np.arange(len(vectors))
    ids = np.zeros(len(vectors), np.int64)
    best = np.full(len(vectors), -np.inf, np.float32)
    second = best.copy()
    room = np.empty(len(vectors) * min(_ROWS, len(centroids)), np.float32)
    for start in range(0, len(centroids), _ROWS):
        block = centroids[start : start + _ROWS]
        # Without gaps between rows: numpy would copy it to find the largest.
        here = room[: len(vectors) * len(block)].reshape(len(vectors), len(block))
        np.matmul(vectors, block.T, out=here)
        place = here.argmax(1)
        top = here[rows, place]
        here[rows, place] = -np.inf
        second = np.maximum(np.maximum(second, here.max(1)), np.minimum(best, top))
        better = top > best
        ids[better] = place[better] + start
        best = np.maximum(best, top)
    return ids, best - second


def best_two_with_torch(vectors: _Floats, centroids: Any) -> tuple[_Ids, _Floats]:
    """Do the same with torch, on the device where the tensor ``centroids`` lies."""
    import torch

    with torch.inference_mode():
        products = torch.from_numpy(vectors).to(centroids.device) @ centroids.T
        found = products.topk(min(2, len(centroids)), dim=1)
        values, ids = found.values.cpu().numpy(), found.indices.cpu().numpy()
    gap = values[:, 0] - values[:, 1] if len(centroids) > 1 else np.full(len(ids), np.inf)
    return ids[:, 0].copy(), gap.astype(np.float32)


def _exactly(vectors: _Floats, centroids: _Floats) -> _Ids:
    """Return the nearest centroid in float64; among equals, but for rounding, the first."""
    wide = vectors.astype(np.float64)
    products = np.empty((len(vectors), len(centroids)))
    for start in range(0, len(centroids), _ROWS):
        block = centroids[start : start + _ROWS].astype(np.float64)
        products[:, start : start + len(block)] = wide @ block.T
    best = products.max(1, keepdims=True)
    return (products >= best - 1e-12 * np.abs(best)).argmax(1)
