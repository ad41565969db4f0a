"""Content identifiers: what kind of bytes, under which hash, with which digest.

A CID of version 0 is the bare multihash of a dag-pb block (``Qm...``); version 1 says version and
codec before it (``baf...``).

https://github.com/multiformats/cid
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ...errors import DataError, IntegrityError
from . import multibase, varint

RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
LIBP2P_KEY = 0x72

SHA2_256 = 0x12
IDENTITY = 0x00

MAX_IDENTITY = 128
"""Bytes a CID may hold itself; boxo and go-cid draw the line at the same place."""

_SHA2_256_PREFIX = bytes((SHA2_256, 32))
_V1_PREFIXES = {RAW: b"\x01\x55\x12\x20", DAG_PB: b"\x01\x70\x12\x20"}


@dataclass(frozen=True, slots=True)
class CID:
    """The name of a block: version (0 or 1), codec, hash function and digest."""

    version: int
    codec: int
    function: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> CID:
        """Read a CID from text in any base that IPFS uses; raises DataError."""
        # A bare multihash is written without a prefix, and nothing else is.
        version = 0 if len(text) == 46 and text.startswith("Qm") else 1
        try:
            data = multibase.decode(text) if version else multibase.from_base58(text)
            cid, end = cls.read(data)
            if cid.version != version or end != len(data):
                raise DataError("the wrong length")
        except DataError as error:
            raise DataError(f"{text[:80]!r}: not a CID: {error}") from None
        return cid

    @classmethod
    def read(cls, data: bytes | memoryview, offset: int = 0) -> tuple[CID, int]:
        """Read the binary CID at ``offset``; return it and the offset after it."""
        if bytes(data[offset : offset + 2]) == _SHA2_256_PREFIX:
            digest = bytes(data[offset + 2 : offset + 34])
            if len(digest) != 32:
                raise DataError("a CID is cut off")
            return cls(0, DAG_PB, SHA2_256, digest), offset + 34
        version, offset = varint.decode(data, offset)
        if version != 1:
            raise DataError(f"a CID of version {version}, which is not known")
        codec, offset = varint.decode(data, offset)
        function, offset = varint.decode(data, offset)
        length, offset = varint.decode(data, offset)
        if function == SHA2_256:
            if length != 32:
                raise DataError(f"a SHA-256 of {length} bytes instead of 32")
        elif function != IDENTITY:
            raise DataError(f"a CID by the hash function 0x{function:x}; only SHA-256 is known")
        elif length > MAX_IDENTITY:
            raise DataError(f"a CID that holds {length:,} bytes itself; at most {MAX_IDENTITY}")
        digest = bytes(data[offset : offset + length])
        if len(digest) != length:
            raise DataError("a CID is cut off")
        return cls(1, codec, function, digest), offset + length

    @classmethod
    def from_bytes(cls, data: bytes) -> CID:
        """Read bytes that are one CID and nothing else; raises DataError."""
        cid, end = cls.read(data)
        if end != len(data):
            raise DataError(f"{len(data) - end} bytes follow a CID")
        return cid

    def to_bytes(self) -> bytes:
        """Return the binary form, as it stands in links and CARs."""
        return to_bytes(self.version, self.codec, self.digest, self.function)

    def __str__(self) -> str:
        return to_text(self.to_bytes())

    def check(self, block: bytes | memoryview) -> None:
        """Raise IntegrityError unless ``block`` is what this CID names."""
        found = hashlib.sha256(block).digest() if self.function == SHA2_256 else bytes(block)
        if found != self.digest:
            raise IntegrityError(f"{self}: {len(block):,} bytes came that are not this block")


def to_bytes(version: int, codec: int, digest: bytes, function: int = SHA2_256) -> bytes:
    """Return a binary CID."""
    if version == 0:
        return _SHA2_256_PREFIX + digest
    if function == SHA2_256 and codec in _V1_PREFIXES:
        return _V1_PREFIXES[codec] + digest
    parts = (1, codec, function, len(digest))
    return b"".join(map(varint.encode, parts)) + digest


def to_text(data: bytes) -> str:
    """Write a binary CID as IPFS writes it: base58 for version 0, base32 for version 1."""
    return multibase.base58(data) if data.startswith(_SHA2_256_PREFIX) else multibase.base32(data)
