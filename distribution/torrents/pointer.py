"""The pointer to the newest version in BitTorrent's DHT: a mutable item (BEP 44).

The value, a bencoded string of canonical JSON ``{"s": serial, "m": SHA-256 of the manifest, "r":
root CID}``, is signed with the release key; the salt is the dataset's name. Items are forgotten
after some two hours, so the seeder puts it again and again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...durable import canonical_json

if TYPE_CHECKING:
    from ..release import Manifest, SigningKey

MAX_BYTES = 1000
"""Of a value, by BEP 44."""


@dataclass(frozen=True)
class DhtPointer:
    """Which version is the newest: its number, the SHA-256 of its manifest, its root CID."""

    serial: int
    manifest_sha256: str
    root_cid: str


def put(session: Any, manifest: Manifest, key: SigningKey) -> None:
    """Store the pointer to a version; a ``dht_put_alert`` tells on how many nodes."""
    value = canonical_json({"s": manifest.serial, "m": manifest.sha256, "r": manifest.root_cid})
    # libtorrent wants the expanded key (RFC 8032, section 5.1.5), not the seed.
    expanded = bytearray(hashlib.sha512(key.seed()).digest())
    expanded[0] &= 248
    expanded[31] = (expanded[31] & 127) | 64
    public = bytes.fromhex(key.public)
    session.dht_put_mutable_item(bytes(expanded), public, value, manifest.name.encode())


def ask(session: Any, public: str, name: str) -> None:
    """Ask for the pointer; the answer is a ``dht_mutable_item_alert``, perhaps several."""
    session.dht_get_mutable_item(bytes.fromhex(public), name.encode())


def read(alert: Any, public: str, name: str) -> DhtPointer | None:
    """Return what an answer says, whose signature libtorrent has checked; None if nothing."""
    if bytes(alert.key) != bytes.fromhex(public) or bytes(alert.salt) != name.encode():
        return None
    value = alert.item["value"] if isinstance(alert.item, dict) else alert.item
    if not isinstance(value, bytes) or len(value) > MAX_BYTES:
        return None
    try:
        said = json.loads(value)
        pointer = DhtPointer(said["s"], said["m"], said["r"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = isinstance(pointer.manifest_sha256, str) and isinstance(pointer.root_cid, str)
    return pointer if type(pointer.serial) is int and texts else None
