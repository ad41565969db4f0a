"""Read a matrix that someone published: ``.npy``, safetensors or ``.pt``, and never its code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingError, UsageError
from ..pools.checkpoints import read_torch
from .pickled_array import holds_tensors, read_pickled_array

_KEYS = ("image_features", "centroids", "embeddings")
"""What the tensor is called in a file of several."""


def read_matrix(path: Path) -> NDArray[np.floating[Any]]:
    """Return the matrix of a file, shape (n, d), in its dtype: float16, float32 or float64.

    Of several tensors that are named, it is the one called image_features, centroids or
    embeddings. Raises DataError for what is no such matrix or holds NaN or infinities.
    """
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors, ".pt": _read_torch}
    if path.suffix not in readers:
        raise UsageError(f"{path}: expected a file named .npy, .safetensors or .pt")
    matrix = readers[path.suffix](path)
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or 0 in matrix.shape:
        raise DataError(
            f"{path}: an array of {matrix.dtype}, shape {matrix.shape}; expected rows of "
            "floating-point numbers"
        )
    if not all(np.isfinite(matrix[n : n + 65_536]).all() for n in range(0, len(matrix), 65_536)):
        raise DataError(f"{path}: holds NaN or infinite numbers")
    return matrix


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, error) from None


def _read_safetensors(path: Path) -> NDArray[Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingError(f"{path}: needs safetensors: pip install safetensors") from None
    try:
        return _one_of(path, load_file(path))
    except (SafetensorError, KeyError, TypeError, OSError) as error:
        raise _unreadable(path, error) from None


def _read_torch(path: Path) -> NDArray[Any]:
    try:
        data = _array_in(path)
        if data is not None:
            return read_pickled_array(data)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    try:
        import torch
    except ImportError:
        raise MissingError(f"{path}: needs torch: pip install 'datacomp[train]'") from None
    found = read_torch(path, "a matrix that torch wrote")
    if isinstance(found, dict):
        found = _one_of(path, found)
    if not isinstance(found, torch.Tensor):
        raise DataError(f"{path}: holds a {type(found).__name__}, not a tensor")
    return found.detach().numpy()


def _array_in(path: Path) -> bytes | None:
    """Return the pickle in a file of ``torch.save`` if it refers to no tensor, else None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith("/data.pkl"):
                continue
            if info.file_size > path.stat().st_size:
                raise ValueError("it is compressed, which torch never does")
            data = archive.read(info)
            return None if holds_tensors(data) else data
    return None


def _one_of(path: Path, found: dict[Any, Any]) -> Any:
    if len(found) == 1:
        return next(iter(found.values()))
    for key in _KEYS:
        if key in found:
            return found[key]
    names = ", ".join(str(key) for key in list(found)[:10])
    raise DataError(
        f"{path}: which tensor is meant? There are: {names or 'none'}; expected one, or one "
        f"named {', '.join(_KEYS)}"
    )


def _unreadable(path: Path, error: BaseException) -> DataError:
    what = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return DataError(f"{path}: cannot be read as {path.suffix[1:]}: {what}")
