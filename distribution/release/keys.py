"""The release key: one Ed25519 key pair (RFC 8032) that signs manifests and all pointers.

The private key is a PEM file (PKCS #8, as ``openssl genpkey -algorithm ed25519`` writes it) that
only its owner may read. The public key is written as 64 hex digits.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import atomic_path, storage_errors
from ...errors import DataError, MissingError, UnsafeInputError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEY_BYTES = 16 << 10
SIGNATURE_BYTES = 64

_PUBLIC = re.compile(r"[0-9a-f]{64}")


class SigningKey:
    """A private key; ``public`` is the name under which its signatures are trusted."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Return the key of a seed of 32 bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, 64 bytes; the same data gives the same signature."""
        return self._key.sign(data)

    def seed(self) -> bytes:
        """Return the 32 secret bytes, for pointers that other software signs."""
        return self._key.private_bytes_raw()


def default_key_path() -> Path:
    """Return where the key lies if no other is named."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "datacomp" / "release.key"


def create_key(path: Path | str) -> SigningKey:
    """Make a new key and write it to a file of mode 0600 that must not be there yet."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = Path(path)
    if path.exists():
        raise UsageError(f"{path}: is there already; a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_path(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(pem)
    return SigningKey(key)


def load_key(path: Path | str) -> SigningKey:
    """Read a private key.

    Raises MissingError, DataError for what is no Ed25519 key in PEM, UnsafeInputError for a key
    that others may read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = Path(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(MAX_KEY_BYTES)
    except FileNotFoundError:
        raise MissingError(
            f"{path}: no such key; make one with 'datacomp release key {path}'"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(f"{path}: not an Ed25519 private key in PEM without a password")
    if stat.S_IMODE(mode) & 0o077:
        raise UnsafeInputError(f"{path}: others may read this key; run 'chmod 600 {path}' first")
    return SigningKey(key)


def public_pem(public: str) -> bytes:
    """Return a public key in PEM, for openssl."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(check_public(public, "key")))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def check_public(public: object, where: str) -> str:
    """Return a public key if it is written as one, else raise DataError."""
    if not isinstance(public, str) or not _PUBLIC.fullmatch(public):
        raise DataError(f"{where}: a public key has 64 hex digits, not {str(public)[:80]!r}")
    return public


def verify(public: str, signature: bytes, data: bytes) -> bool:
    """Tell whether a signature of ``data`` was made with a public key's private half."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
