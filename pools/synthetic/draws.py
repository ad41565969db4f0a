"""Random numbers that are named, not drawn in turn: kernels.

A stream is named by seed, class, instance and purpose; its n-th number is a hash of name and n
(splitmix64: Steele, Lea and Flood, OOPSLA 2014). So any image can be made by itself, in any
order, on any machine.

In a kernel, ``key = stream(seed, class_id, instance, purpose)``; then ``bits(key, n)`` for
n = 0, 1, ... or, of those bits, ``unit`` and ``below``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jit import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _32 = (np.uint64(n) for n in (30, 27, 31, 11, 32))

CLASS = -1
"""The instance of streams that concern a whole class."""


@kernel
def mix(z: Any) -> Any:
    """Return 64 well-mixed bits of 64 bits."""
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@kernel
def stream(seed: int, class_id: int, instance: int, purpose: int) -> Any:
    """Return the key of a stream, uint64."""
    key = mix(np.uint64(seed) + _GOLDEN)
    key = mix(key ^ (np.uint64(class_id) * _GOLDEN))
    key = mix(key + (np.uint64(instance) + np.uint64(2)) * _FIRST)
    return mix(key ^ (np.uint64(purpose) * _SECOND))


@kernel
def bits(key: Any, n: int) -> Any:
    """Return the n-th 64 bits of a stream."""
    return mix(key + (np.uint64(n) + np.uint64(1)) * _GOLDEN)


@kernel
def unit(key: Any, n: int) -> float:
    """Return the n-th number of a stream as a float64 in [0, 1)."""
    return float(bits(key, n) >> _11) * (1.0 / 9007199254740992.0)


@kernel
def below(key: Any, n: int, count: int) -> Any:
    """Return the n-th number of a stream as an integer in [0, count), count up to 2**32."""
    return np.int64(((bits(key, n) >> _32) * np.uint64(count)) >> _32)


class NamedStream:
    """Draws one number after the other from a named stream, as ``random.Random`` would."""

    def __init__(self, seed: int, class_id: int, instance: int, purpose: int) -> None:
        self._key, self._next = np.uint64(stream(seed, class_id, instance, purpose)), -1

    def randint(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        self._next += 1
        return low + int(below(self._key, self._next, high - low + 1))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        self._next += 1
        return low + (high - low) * float(unit(self._key, self._next))

    def expovariate(self, rate: float) -> float:
        """Return a number of the exponential distribution with mean 1 / rate."""
        return -math.log(1.0 - self.uniform(0.0, 1.0)) / rate
