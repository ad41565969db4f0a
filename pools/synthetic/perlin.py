"""One-dimensional Perlin noise as the authors' code takes it: at a fresh random place each time.

Perlin noise (Siggraph 2002) of one octave with integer gradients: -1 at half of all places,
1 to 8 at the others; scaled by 0.4 and computed in float32. Since each place is drawn anew from
[0, 10000), what comes out is independent noise: mean 0, standard deviation 0.33, within 0.96.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

SPAN = 10000.0
"""Places are drawn from [0, SPAN)."""

TABLE = 1 << 16

_SLOPES = (
    "8100004000163082058060046160807580001060000064010220060805000050"
    "0687010703084060046700008060570720022010205010300583500755070041"
    "5030006074700365000401027000080680030047006080002780430002103010"
    "0725033203100432242000002170680005014030057000000340004014038005"
)
"""The gradient at each whole number modulo 256; 0 stands for -1."""

GRADIENTS = np.array([int(digit) or -1 for digit in _SLOPES], np.float32)

_0, _1, _6, _10, _15, _SCALE = (np.float32(x) for x in (0, 1, 6, 10, 15, 0.4))
_MASK, _NEXT = np.int32(255), np.int32(1)


@kernel
def noise(place: float, gradients: Any) -> Any:
    """Return the noise at a place of at least 0, float32."""
    x = np.float32(place)
    cell = np.int32(x)
    x -= np.float32(cell)
    fade = x * x * x * (x * (x * _6 - _15) + _10)
    here = gradients[cell & _MASK] * x
    there = gradients[(cell + _NEXT) & _MASK] * (x - _1)
    return (here + fade * (there - here)) * _SCALE


@kernel
def _fill(table: Any, gradients: Any) -> None:
    for k in range(len(table)):
        table[k] = noise((k + 0.5) * (SPAN / len(table)), gradients)


@cache
def table() -> NDArray[np.float32]:
    """Return TABLE values that occur as often as the noise of random places does."""
    values = np.empty(TABLE, np.float32)
    _fill(values, GRADIENTS)
    return values
