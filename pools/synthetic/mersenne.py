"""Python's ``random``, bit for bit, in bulk: a Mersenne Twister and kernels over its state.

A state is a uint32 array of 625: the 624 words and the index of the next one, as
``random.Random().getstate()[1]`` has them. (Matsumoto and Nishimura, ACM TOMACS 1998.)
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

WORDS = 624
_SHIFT = 397
_UPPER, _LOWER, _MAGIC = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
_B, _C = np.uint32(0x9D2C5680), np.uint32(0xEFC60000)
_1, _5, _6, _7, _11, _15, _18 = (np.uint32(n) for n in (1, 5, 6, 7, 11, 15, 18))


@kernel
def _twist(mt: Any) -> None:
    # Three loops, so that each can be done in vectors.
    for k in range(WORDS - _SHIFT):
        y = (mt[k] & _UPPER) | (mt[k + 1] & _LOWER)
        mt[k] = mt[k + _SHIFT] ^ (y >> _1) ^ ((y & _1) * _MAGIC)
    for k in range(WORDS - _SHIFT, WORDS - 1):
        y = (mt[k] & _UPPER) | (mt[k + 1] & _LOWER)
        mt[k] = mt[k + _SHIFT - WORDS] ^ (y >> _1) ^ ((y & _1) * _MAGIC)
    y = (mt[WORDS - 1] & _UPPER) | (mt[0] & _LOWER)
    mt[WORDS - 1] = mt[_SHIFT - 1] ^ (y >> _1) ^ ((y & _1) * _MAGIC)


@kernel
def _tempered(y: Any) -> Any:
    y ^= y >> _11
    y ^= (y << _7) & _B
    y ^= (y << _15) & _C
    return np.uint32(y ^ (y >> _18))


@kernel
def word(mt: Any) -> Any:
    """Return the next 32 bits."""
    at = mt[WORDS]
    if at >= WORDS:
        _twist(mt)
        at = np.uint32(0)
    mt[WORDS] = at + _1
    return _tempered(mt[at])


@kernel
def words(mt: Any, out: Any, count: int) -> None:
    """Write the next ``count`` words of 32 bits into ``out``."""
    done = 0
    at = np.int64(mt[WORDS])
    while done < count:
        if at >= WORDS:
            _twist(mt)
            at = 0
        take = min(WORDS - at, count - done)
        for k in range(take):
            out[done + k] = _tempered(mt[at + k])
        at += take
        done += take
    mt[WORDS] = np.uint32(at)


@kernel
def skip(mt: Any, count: int) -> None:
    """Pass over the next ``count`` words."""
    at = np.int64(mt[WORDS]) + count
    while at > WORDS:
        _twist(mt)
        at -= WORDS
    mt[WORDS] = np.uint32(at)


@kernel
def randint(mt: Any, low: int, count: int) -> Any:
    """Return ``low + random._randbelow(count)``, count below 2**32."""
    width = 0
    while (count >> width) > 0:
        width += 1
    shift = np.uint32(32 - width)
    value = np.int64(word(mt) >> shift)
    while value >= count:
        value = np.int64(word(mt) >> shift)
    return low + value


@kernel
def uniform(mt: Any, low: float, span: float) -> float:
    """Return ``low + span * random.random()``."""
    high = word(mt) >> _5
    rest = word(mt) >> _6
    return low + span * ((high * 67108864.0 + rest) * (1.0 / 9007199254740992.0))


class MersenneStream:
    """Draws what ``random.Random(seed)`` draws; ``state`` may be handed to the kernels."""

    def __init__(self, seed: int) -> None:
        self.state: NDArray[np.uint32] = np.array(random.Random(seed).getstate()[1], np.uint32)

    def randint(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(randint(self.state, low, high - low + 1))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        return float(uniform(self.state, low, high - low))

    def expovariate(self, rate: float) -> float:
        """Return a number of the exponential distribution with mean 1 / rate."""
        return -math.log(1.0 - self.uniform(0.0, 1.0)) / rate
