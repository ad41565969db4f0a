"""IPNS: a name that is a public key, and records that say where it points, signed by that key.

Records are of version 2 alone: the signed part is DAG-CBOR, and the key stands in the name.

https://specs.ipfs.tech/ipns/ipns-record
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ...errors import DataError, IntegrityError, UnsafeInputError
from . import dagcbor, multibase, protobuf
from .cid import CID, IDENTITY, LIBP2P_KEY

MAX_RECORD = 10 << 10
"""Bytes of a record, by the specification."""

TTL = timedelta(minutes=5)
"""How long a record may be kept before someone asks for a newer one."""

_SIGNED_PREFIX = b"ipns-signature:"
_ED25519 = 1
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_UNSIGNED = {1: "Value", 3: "ValidityType", 4: "Validity", 5: "Sequence", 6: "TTL"}
"""Fields of version 1 that repeat signed ones, and must say the same."""


class Signer(Protocol):
    """Signs with an Ed25519 key; ``public`` is the public key, 64 digits of hex."""

    @property
    def public(self) -> str:
        """The raw public key in hex."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says: path, number of its version, when it ends, how long it may be kept."""

    value: str
    sequence: int
    expires: datetime
    ttl: timedelta


def name_of(public: str) -> str:
    """Return the IPNS name of an Ed25519 public key given in hex: ``k51...``."""
    return multibase.base36(CID(1, LIBP2P_KEY, IDENTITY, _key_message(public)).to_bytes())


def peer_id_of(public: str) -> str:
    """Return the libp2p peer id of the same key: ``12D3Koo...``."""
    message = _key_message(public)
    return multibase.base58(bytes((IDENTITY, len(message))) + message)


def key_of(name: str) -> str:
    """Return the public key in hex that an IPNS name, or the peer id of the same key, holds.

    Raises DataError for what is no name, or one that holds only the hash of a key.
    """
    is_peer = name.startswith(("12D3", "16Uiu2", "Qm"))
    cid = _peer_id(name) if is_peer else CID.parse(name)
    if cid.codec != LIBP2P_KEY:
        raise DataError(f"{name[:80]!r}: a CID, but not the name of a key")
    if cid.function != IDENTITY:
        raise DataError(f"{name[:80]!r}: holds only the hash of a key; only Ed25519 is known")
    try:
        fields = list(protobuf.fields(cid.digest))
    except DataError as error:
        raise DataError(f"{name[:80]!r}: not the name of a key: {error}") from None
    if len(fields) != 2 or fields[0] != (1, _ED25519) or fields[1][0] != 2:
        raise DataError(f"{name[:80]!r}: not the name of an Ed25519 key")
    key = fields[1][1]
    if not isinstance(key, bytes) or len(key) != 32:
        raise DataError(f"{name[:80]!r}: not the name of an Ed25519 key")
    return key.hex()


def _key_message(public: str) -> bytes:
    return protobuf.number(1, _ED25519) + protobuf.data(2, bytes.fromhex(public))


def _peer_id(text: str) -> CID:
    try:
        data = multibase.from_base58(text)
    except DataError as error:
        raise DataError(f"{text[:80]!r}: not a peer id: {error}") from None
    if len(data) < 2 or data[1] != len(data) - 2 or data[0] not in (IDENTITY, 0x12):
        raise DataError(f"{text[:80]!r}: not a peer id")
    return CID(1, LIBP2P_KEY, data[0], data[2:])


# -- records ---------------------------------------------------------------------------------


def create_record(
    key: Signer, value: str, sequence: int, expires: datetime, ttl: timedelta = TTL
) -> bytes:
    """Return a signed record that points the name of ``key`` to ``value``, as ``/ipfs/CID``.

    Of two records the higher sequence is the newer one, then the later end.
    """
    moment = expires.astimezone(UTC)
    said = {
        "Value": value.encode(),
        "Validity": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond * 1000:09d}Z".encode(),
        "ValidityType": 0,
        "Sequence": sequence,
        "TTL": int(ttl / timedelta(microseconds=1)) * 1000,
    }
    data = dagcbor.encode(said)
    record = protobuf.data(8, key.sign(_SIGNED_PREFIX + data)) + protobuf.data(9, data)
    if len(record) > MAX_RECORD:
        raise UnsafeInputError(f"an IPNS record of {len(record):,} bytes; at most {MAX_RECORD:,}")
    return record


def read_record(data: bytes, name: str, now: datetime | None = None) -> Record:
    """Verify a record for a name and return what it says.

    Raises UnsafeInputError for a record too large, DataError for what is no record, and
    IntegrityError where the signature is not by the key of the name, an unsigned field says
    something else than the signed one, or the record has expired.
    """
    public = key_of(name)
    if len(data) > MAX_RECORD:
        raise UnsafeInputError(
            f"/ipns/{name}: a record of {len(data):,} bytes; at most {MAX_RECORD:,}"
        )
    try:
        fields = dict(protobuf.fields(data))
        signature, signed = fields.get(8), fields.get(9)
        if not isinstance(signature, bytes) or not isinstance(signed, bytes):
            raise DataError("it has no signature of version 2")
        said = dagcbor.decode(signed)
        record = _record(said)
    except DataError as error:
        raise DataError(f"/ipns/{name}: not an IPNS record: {error}") from None
    if not _verify(public, signature, _SIGNED_PREFIX + signed):
        raise IntegrityError(f"/ipns/{name}: the record is not signed by the key of this name")
    if 1 in fields or 2 in fields:
        for number, key in _UNSIGNED.items():
            # Protobuf leaves zeros out.
            if fields.get(number, 0) != said[key]:
                raise IntegrityError(f"/ipns/{name}: the record says two different things ({key})")
    if record.expires <= (now or datetime.now(UTC)):
        raise IntegrityError(
            f"/ipns/{name}: the record expired {record.expires:%Y-%m-%d %H:%M} UTC; "
            "ask for a newer one"
        )
    return record


def _record(said: Any) -> Record:
    kinds = {"Value": bytes, "Validity": bytes, "ValidityType": int, "Sequence": int, "TTL": int}
    if not isinstance(said, dict) or any(
        type(said.get(key)) is not kind for key, kind in kinds.items()
    ):
        raise DataError("its signed part lacks a field")
    if said["ValidityType"] != 0 or said["Sequence"] < 0 or said["TTL"] < 0:
        raise DataError("its validity is of an unknown kind")
    try:
        value = said["Value"].decode()
        found = _TIME.fullmatch(said["Validity"].decode("ascii"))
        if found is None:
            raise ValueError
        fraction = (found[2] or "")[:6].ljust(6, "0")
        expires = datetime.fromisoformat(f"{found[1]}.{fraction}{found[3].replace('Z', '+00:00')}")
    except ValueError:
        raise DataError("its path or its time cannot be read") from None
    ttl = timedelta(microseconds=min(said["TTL"] // 1000, 10**15))
    return Record(value, said["Sequence"], expires.astimezone(UTC), ttl)


def _verify(public: str, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
