"""Which leaf has a digest: an index on disk, for there is a leaf for every MiB of a release.

Of each leaf the first eight bytes of its digest and its number are kept, sorted, in blocks of a
file without a name. In memory is where each block begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..stretch import Kept, Spill
from .unixfs import DIGEST, FileTree

AT_ONCE = 1 << 17
"""Leaves that are sorted together, about."""
IN_BLOCK = 256


class LeafIndex:
    """Finds leaves of several files by their digests."""

    def __init__(self, trees: Sequence[FileTree], spill: Spill) -> None:
        counts = [tree.count for tree in trees]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._blocks: list[Kept] = []
        unsorted = [spill.put(_prefixes(tree).tobytes()) for tree in trees]
        first: list[np.uint64] = []
        shares = -(-int(self._starts[-1]) // AT_ONCE)
        for share in range(shares):
            # Digests are spread evenly, so each share of their range has about as many.
            prefixes, numbers = self._within(unsorted, share, shares)
            order = np.argsort(prefixes, kind="stable")
            prefixes, numbers = prefixes[order], numbers[order]
            for at in range(0, len(prefixes), IN_BLOCK):
                block = slice(at, at + IN_BLOCK)
                first.append(prefixes[at])
                self._blocks.append(spill.put(prefixes[block].tobytes() + numbers[block].tobytes()))
        self._first = np.array(first, dtype=np.uint64)

    def find(self, digest: bytes) -> Iterator[tuple[int, int]]:
        """Yield the number of the file, and of the leaf in it, that may have a digest."""
        prefix = np.uint64(int.from_bytes(digest[:8], "big"))
        at = max(int(np.searchsorted(self._first, prefix)) - 1, 0)
        while at < len(self._blocks) and self._first[at] <= prefix:
            values = np.frombuffer(bytes(self._blocks[at]), dtype=np.uint64)
            prefixes, numbers = np.split(values, 2)
            for leaf in numbers[prefixes == prefix]:
                file = int(np.searchsorted(self._starts, leaf, side="right")) - 1
                yield file, int(leaf) - int(self._starts[file])
            at += 1

    def _within(
        self, unsorted: list[Kept], share: int, shares: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return prefixes and numbers of the leaves in a share of the range of digests."""
        low, last = (share << 64) // shares, ((share + 1 << 64) // shares) - 1
        found, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for start, part in zip(self._starts, unsorted, strict=False):
            prefixes = np.frombuffer(bytes(part), dtype=np.uint64)
            (chosen,) = np.nonzero((prefixes >= np.uint64(low)) & (prefixes <= np.uint64(last)))
            found.append(prefixes[chosen])
            numbers.append(chosen.astype(np.uint64) + np.uint64(start))
        return np.concatenate(found), np.concatenate(numbers)


def _prefixes(tree: FileTree) -> NDArray[np.uint64]:
    digests = np.frombuffer(bytes(tree.leaves), dtype=">u8").reshape(-1, DIGEST // 8)
    return digests[:, 0].astype(np.uint64)
