"""Groups that grow by joining pairs: who is nearly the same as whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Ids = NDArray[np.int64]


class Groups:
    """``count`` things, each at first in a group of its own; the least of a group stands for it."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)

    def join(self, a: _Ids, b: _Ids) -> None:
        """Put a[i] and b[i] in one group, for each i; shapes (n,)."""
        while len(a):
            a, b = self._roots(a), self._roots(b)
            low, high = np.minimum(a, b), np.maximum(a, b)
            apart = low < high
            a, b = low[apart], high[apart]
            # Of several that a root should hang under, the least wins; the others try again.
            np.minimum.at(self._parent, b, a)

    def apart(self, a: _Ids, b: _Ids) -> NDArray[np.bool_]:
        """Tell which pairs are not in one group yet, shape (n,)."""
        return self._roots(a) != self._roots(b)

    def roots(self) -> NDArray[np.int64]:
        """Return the least of the group of each, shape (count,)."""
        return self._roots(np.arange(len(self._parent)))

    def first(self) -> NDArray[np.bool_]:
        """Tell who is the least of its group, shape (count,)."""
        return self._parent == np.arange(len(self._parent))

    def _roots(self, items: _Ids) -> _Ids:
        """Return the least of each one's group, and shorten the way there for the next time."""
        roots = self._parent[items]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = self._parent[above]
        self._parent[items] = roots
        return roots
