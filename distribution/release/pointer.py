"""``latest.json``: the signed, short-lived pointer to the newest version.

It is the only file of a release that changes. Its serial number never goes down and it expires,
so a mirror can neither bring an old version back nor hide that there is a newer one for long.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ...durable import canonical_json
from ...errors import DataError, IntegrityError, UnsafeInputError
from . import keys
from .fields import Reader
from .manifest import Manifest

FORMAT = "datacomp-latest"
FORMAT_VERSION = 1
NAME = "latest.json"
RECORD = "latest.ipns"
"""The same pointer as IPNS has it."""
VALID_DAYS = 30
MAX_BYTES = 64 << 10
_CONTEXT = b"datacomp-latest:"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Pointer:
    """What ``latest.json`` says; times are in UTC, ``raw`` are its bytes."""

    name: str
    key: str
    version: str
    serial: int
    manifest_path: str
    manifest_size: int
    manifest_sha256: str
    root_cid: str
    infohash_v1: str
    infohash_v2: str
    issued: datetime
    expires: datetime
    raw: bytes


def sign_pointer(
    manifest: Manifest, key: keys.SigningKey, now: datetime, valid_days: float = VALID_DAYS
) -> bytes:
    """Return the bytes of ``latest.json`` for a version, valid from ``now``."""
    signed = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": manifest.name,
        "key": manifest.key,
        "version": manifest.version,
        "serial": manifest.serial,
        "manifest": {
            "path": f"versions/{manifest.version}/manifest.json",
            "size": len(manifest.raw),
            "sha256": manifest.sha256,
        },
        "root_cid": manifest.root_cid,
        "infohash_v1": manifest.torrents["hybrid"]["infohash_v1"],
        "infohash_v2": manifest.torrents["hybrid"]["infohash_v2"],
        "issued": now.astimezone(UTC).strftime(_TIME),
        "expires": (now.astimezone(UTC) + timedelta(days=valid_days)).strftime(_TIME),
    }
    return _wrap(signed, key.sign(_CONTEXT + canonical_json(signed)))


def _wrap(signed: Any, signature: bytes) -> bytes:
    """Return the one encoding of a pointer and its signature."""
    text = base64.b64encode(signature).decode()
    return canonical_json({"signed": signed, "signature": text}) + b"\n"


def read_pointer(
    data: bytes,
    where: str,
    key: str | None = None,
    now: datetime | None = None,
    seen: Pointer | None = None,
) -> Pointer:
    """Return what a ``latest.json`` says if it is to be believed.

    ``key`` is the public key expected, ``now`` the present time (default: the clock's), ``seen``
    the newest pointer believed before. Raises DataError (malformed), UnsafeInputError (size) and
    IntegrityError: a wrong signature, another key, an expired pointer, a version before the one
    seen, or another manifest under the serial number seen.
    """
    if len(data) > MAX_BYTES:
        raise UnsafeInputError(f"{where}: larger than {MAX_BYTES:,} bytes; refused")
    try:
        value = json.loads(data)
        signature = base64.b64decode(value["signature"], validate=True)
        signed = canonical_json(value["signed"])
        if _wrap(value["signed"], signature) != data:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise DataError(f"{where}: not a signed pointer to a release") from None
    pointer = _read(value["signed"], where, data)
    if key is not None and pointer.key != key:
        raise IntegrityError(
            f"{where}: signed with the key {pointer.key}, not with {key} as expected; refused"
        )
    if not keys.verify(pointer.key, signature, _CONTEXT + signed):
        raise IntegrityError(f"{where}: its signature is wrong; it was altered or is not theirs")
    now = now or datetime.now(UTC)
    if pointer.expires <= now:
        raise IntegrityError(
            f"{where}: expired on {pointer.expires:%Y-%m-%d %H:%M} UTC; the mirror is stale or "
            "holds newer versions back; try another, or ask the keeper to renew it"
        )
    if seen is not None:
        _refuse_rollback(pointer, seen, where)
    return pointer


def _refuse_rollback(pointer: Pointer, seen: Pointer, where: str) -> None:
    if pointer.key != seen.key:
        raise IntegrityError(
            f"{where}: signed with the key {pointer.key}, but {seen.key} was seen before; refused"
        )
    if pointer.serial < seen.serial:
        raise IntegrityError(
            f"{where}: names version {pointer.version} (number {pointer.serial}), older than "
            f"{seen.version} (number {seen.serial}) seen before; refused"
        )
    if pointer.serial == seen.serial and pointer.manifest_sha256 != seen.manifest_sha256:
        raise IntegrityError(
            f"{where}: names another manifest of number {pointer.serial} than the one seen "
            "before; its keeper has to explain that; refused"
        )


def _read(value: Any, where: str, raw: bytes) -> Pointer:
    reader = Reader(value, where)
    if value.get("format") != FORMAT or value.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{where}: not a pointer of {FORMAT!r}, version {FORMAT_VERSION}")
    manifest = reader.within("manifest")
    version = reader.name("version")
    path = manifest.text("path")
    if path != f"versions/{version}/manifest.json":
        raise UnsafeInputError(
            f"{where}: the manifest's path {path[:80]!r} is not its own; refused"
        )
    return Pointer(
        name=reader.name("name"),
        key=keys.check_public(value.get("key"), f"{where}: key"),
        version=version,
        serial=reader.number("serial", 1),
        manifest_path=path,
        manifest_size=manifest.number("size"),
        manifest_sha256=manifest.hex("sha256"),
        root_cid=reader.cid("root_cid"),
        infohash_v1=reader.hex("infohash_v1", 40),
        infohash_v2=reader.hex("infohash_v2"),
        issued=_time(reader, "issued"),
        expires=_time(reader, "expires"),
        raw=raw,
    )


def _time(reader: Reader, name: str) -> datetime:
    text = reader.text(name, limit=40)
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise reader.broken(name, "a time as 2026-11-20T12:00:00Z", text) from None
