"""Features of a pool, their rows as unit vectors, and draws that depend on uids alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingError
from ..pools.features import Features
from ..pools.pool import Pool
from ..pools.uids import UidArray

Floats = NDArray[np.float32]

_ROWS = 4096
"""How many rows are held in float64 at a time."""


_ORIGIN = (
    "features come with DataComp's metadata ('datacomp pool download small DIR --features'), or "
    "are computed by 'datacomp pool embed'"
)


def open_features(pool: Pool, names: Sequence[str], scorer: str) -> dict[str, Features]:
    """Return a reader of each of the features; MissingError says what brings them."""
    try:
        return {name: Features(pool, name) for name in names}
    except MissingError as error:
        raise need_features(str(error), names, scorer) from None


def need_features(trouble: str, names: Sequence[str], scorer: str) -> MissingError:
    """Return the error of features that are not there; it says what brings them."""
    return MissingError(f"{trouble}; {scorer} needs {', '.join(names)}; {_ORIGIN}")


def unit(rows: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return rows (n, d) at length one, float32, and which of them (n,) can be used.

    A row that is not finite or has no length cannot, and is all zeros. Lengths are taken in
    float64, so that no row of large or small numbers is lost.
    """
    found = np.zeros(rows.shape, np.float32)
    usable = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        wide = np.asarray(rows[part], np.float64)
        largest = np.abs(wide).max(axis=1, initial=0)
        fine = np.isfinite(largest) & (largest > 0)
        scaled = wide[fine] / largest[fine, None]
        lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
        found[part][fine] = scaled / lengths[:, None]
        usable[part] = fine
    return found, usable


def draw(uids: UidArray, seed: int, what: int = 0) -> NDArray[np.uint64]:
    """Return a number of 64 bits for each uid, shape (n,): as good as random, and always the same.

    Other seeds and other values of ``what`` give other numbers. It is the finaliser of
    SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014), applied to
    seed, high and low half one after the other.
    """
    golden = 0x9E3779B97F4A7C15
    start = (seed * golden + (what + 1) * 0xD1B54A32D192ED03) % 2**64
    state = np.full(len(uids), start, np.uint64)
    for half in (uids["f0"], uids["f1"]):
        state = _mixed((state ^ np.ascontiguousarray(half)) + np.uint64(golden))
    return state


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def uniform(uids: UidArray, seed: int, what: int = 0) -> NDArray[np.float64]:
    """Return ``draw`` as numbers of [0, 1), 53 bits each."""
    return (draw(uids, seed, what) >> np.uint64(11)).astype(np.float64) * 2.0**-53
