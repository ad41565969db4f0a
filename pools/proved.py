"""Ranges of a file on a web server, each proved to belong to a file that is known by its root.

The root is that of the file's hash tree (``merkle``). A request has the header ``Want-Proof:
btmh``; the answer's header ``Proof`` has, in base64, the hashes that lead from the blocks given to
the root. ``datacomp serve`` answers so.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote

from ..errors import DataError, IntegrityError
from .http import http_get, refuse_status
from .merkle import BLOCK, blocks_in, leaves_of, root_of_blocks
from .ranges import Ranges

SCHEME = "proved+"
"""Before the URL of a server; the version of such a file is the root, in hex."""
WANT, PROOF, KIND = "Want-Proof", "Proof", "btmh"
_MAX_HASHES = 128


class ProvedRanges(Ranges):
    """A file of ``size`` bytes and a root. What is read of it is that file's, or an error."""

    def __init__(self, place: str, size: int, root: str) -> None:
        self.place, self.size, self.version = place, size, root
        folder, _, name = place.removeprefix(SCHEME).rpartition("/")
        self._url = f"{folder}/{quote(name)}"

    def read_at(self, offset: int, length: int) -> bytes:
        """Ask for the blocks that hold a range, and verify them.

        Raises IntegrityError for wrong bytes, DataError for a server that proves nothing,
        MissingError.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        first = offset // BLOCK
        start, stop = first * BLOCK, min(blocks_in(end) * BLOCK, self.size)
        asked = {"Range": f"bytes={start}-{stop - 1}", WANT: KIND}
        response, data, _ = http_get(self._url, asked, stop - start, home=True)
        refuse_status(response, self._url)
        proof = response.getheader(PROOF)
        if response.status != 206 or proof is None:
            raise DataError(
                f"{self._url}: the server does not prove what it gives; use a mirror that runs "
                "'datacomp serve', or get the whole"
            )
        leaves = leaves_of(memoryview(data))
        found = root_of_blocks(leaves, first, blocks_in(self.size), _hashes(proof))
        if len(data) != stop - start or found is None or found.hex() != self.version:
            raise IntegrityError(
                f"{self._url}: bytes {start:,} to {stop:,} are not those of the file that was "
                "signed; use another mirror"
            )
        return data[offset - start : end - start]


def _hashes(proof: str) -> list[bytes]:
    try:
        data = base64.b64decode(proof[: _MAX_HASHES * 44], validate=True)
    except (binascii.Error, ValueError):
        return []
    return [data[at : at + 32] for at in range(0, len(data), 32)]
