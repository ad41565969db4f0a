"""Under which conditions channels are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UsageError

MAX_PEERS = 16
MAX_REPEATS = 20


@dataclass(frozen=True)
class Conditions:
    """Under which conditions channels are compared.

    ``peers`` is the most peers, ``rate`` the bytes a second that each holder of the data gives at
    most (0 is no limit), ``ping`` the seconds there and back between any two, ``repeats`` how
    often each case is measured, ``timeout`` the seconds after which a download is given up,
    ``killed`` whether every case is measured with the origin killed half-way, too. Raises
    UsageError for what is out of bounds.
    """

    peers: int = 3
    rate: float = 20e6
    ping: float = 0.0
    repeats: int = 1
    timeout: float = 600.0
    killed: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("peers", 1, MAX_PEERS), ("rate", 0, 1e12), ("ping", 0, 10),
            ("repeats", 1, MAX_REPEATS), ("timeout", 1, 86_400),
        ):  # fmt: skip
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise UsageError(f"{name} {value!r}: expected {low} to {high:,.0f}")
        if 0 < self.rate < 1e4:
            raise UsageError(f"rate {self.rate:g}: expected 0 (no limit) or 10,000 B/s and more")
