"""Uids that cannot be had, and why: few as a rule, but of a large pool a tenth may be gone."""

from __future__ import annotations

import copy
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...durable import atomic_path, canonical_json
from ...pools.uids import UID_DTYPE, UidArray, to_hex
from .buckets import Buckets

HELD = 4 << 20
"""Bytes of uids kept in memory for each reason."""
BLOCK = 1 << 16


class Missing:
    """Pairs of a uid and the reason why it is not there, in order; any number of them."""

    def __init__(self, folder: Path) -> None:
        """What does not fit into memory lies in ``folder``."""
        self._folder = folder
        self._found: dict[str, Buckets] = {}
        self._others: list[tuple[str, str]] = []

    def add(self, uids: UidArray, reason: str) -> None:
        """Add uids, shape (n,), that come after those already there for this reason."""
        if len(uids):
            if reason not in self._found:
                self._found[reason] = Buckets(1, UID_DTYPE, self._folder, HELD)
            self._found[reason].add(np.zeros(len(uids), np.uint16), uids)

    def plus(self, pairs: Iterable[tuple[str, str]]) -> Missing:
        """Return these and a few other pairs."""
        joined = copy.copy(self)
        joined._others = sorted([*self._others, *pairs])
        return joined

    def __len__(self) -> int:
        return sum(self.reasons().values())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return heapq.merge(*(self._of(reason) for reason in self._found), self._others)

    def reasons(self) -> dict[str, int]:
        """Return how many uids are missing for each reason."""
        counts = Counter({reason: int(found.rows[0]) for reason, found in self._found.items()})
        counts.update(reason for _, reason in self._others)
        return dict(counts)

    def identity(self) -> Mapping[str, Any]:
        """Return what names them: their number, and the digest of the list of pairs."""
        hashed = hashlib.sha256(b"[")
        for number, pair in enumerate(self):
            hashed.update(b"," * (number > 0) + canonical_json(pair))
        hashed.update(b"]")
        return {"count": len(self), "digest": hashed.hexdigest()}

    def write(self, path: Path) -> None:
        """Write a line for each uid."""
        with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(f"{uid} {reason}\n" for uid, reason in self)

    def _of(self, reason: str) -> Iterator[tuple[str, str]]:
        for piece in self._found[reason].pieces(0, 1):
            for first in range(0, len(piece), BLOCK):
                for uid in to_hex(piece[first : first + BLOCK]):
                    yield uid, reason
