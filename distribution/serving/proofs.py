"""Proofs that a range of a file is what was released: hashes that lead to the root of its tree."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...pools.merkle import BLOCK, ZERO, beside, blocks_in, fold, leaves_of

if TYPE_CHECKING:
    from ..release.digests import Record

MAX_BYTES = 32 << 20
"""What is read of a file beside the range asked for, at most."""


@dataclass(frozen=True)
class Prover:
    """Proves ranges of one file. Hashes of whole pieces are known; those below are made anew."""

    path: Path
    record: Record

    def prove(self, start: int, end: int) -> str | None:
        """Return the hashes, in base64; None for a range that does not consist of whole blocks."""
        size = self.record.size
        if start % BLOCK or (end % BLOCK and end != size) or start >= end:
            return None
        needed = list(beside(start // BLOCK, blocks_in(end), blocks_in(size)))
        low = self._levels_in_a_piece
        if sum(BLOCK << level for level, _ in needed if level < low) > MAX_BYTES:
            return None
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            hashes = [
                self._below(descriptor, level, number)
                if level < low
                else self._above(level - low, number)
                for level, number in needed
            ]
        finally:
            os.close(descriptor)
        return base64.b64encode(b"".join(hashes)).decode()

    @property
    def _levels_in_a_piece(self) -> int:
        if not self.record.layer:  # one piece: nothing is known of it
            return 64
        return (self.record.piece_length // BLOCK).bit_length() - 1

    def _below(self, descriptor: int, level: int, number: int) -> bytes:
        """Hash a part of a piece."""
        span = BLOCK << level
        start = span * number
        data = os.pread(descriptor, min(span, self.record.size - start), start)
        return fold(leaves_of(memoryview(data)), 1 << level)

    def _above(self, level: int, number: int) -> bytes:
        """Put the hashes of pieces together."""
        layer, width = bytes(self.record.layer), 1 << level
        at = range(number * width, min((number + 1) * width, len(layer) // 32))
        pieces = [layer[32 * piece : 32 * piece + 32] for piece in at]
        return fold(pieces, width, fold([], self.record.piece_length // BLOCK, ZERO))
