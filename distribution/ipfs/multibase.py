"""Bytes as text, with a first letter that names the alphabet (multibase).

Only the bases that IPFS uses are known: base32 for CIDs, base36 for IPNS names, base58 for what
is old, base16 and base64url where someone writes them.

https://github.com/multiformats/multibase
"""

from __future__ import annotations

import base64
import binascii
import re

from ...errors import DataError

MAX_TEXT = 512

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE32 = re.compile("[a-z2-7]*")
_TO_PYTHON = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", _BASE36[:32])
"""From the letters of base32 to the digits that ``int(text, 32)`` reads."""


def base32(data: bytes) -> str:
    """Return lower-case base32 without padding, with its prefix ``b``."""
    return "b" + base64.b32encode(data).decode().rstrip("=").lower()


def base36(data: bytes) -> str:
    """Return lower-case base36 with its prefix ``k``."""
    return "k" + _to_digits(data, _BASE36)


def base58(data: bytes) -> str:
    """Return base58 in Bitcoin's alphabet, without a prefix, as CIDs of version 0 are written."""
    return _to_digits(data, _BASE58)


def from_base58(text: str) -> bytes:
    """Return the bytes of base58 without a prefix; raises DataError."""
    return _from_digits(text, _BASE58)


def decode(text: str) -> bytes:
    """Return the bytes of a text with a multibase prefix; raises DataError."""
    if len(text) > MAX_TEXT:
        raise DataError(f"{len(text):,} characters, too long for IPFS")
    prefix, body = text[:1], text[1:]
    if prefix in ("b", "B"):
        return _base32(body, prefix == "B")
    if prefix in ("k", "K"):
        return _from_digits(body if prefix == "k" else body.lower(), _BASE36)
    if prefix == "z":
        return _from_digits(body, _BASE58)
    if prefix in ("f", "F"):
        return _base16(body)
    if prefix == "u":
        return _base64url(body)
    raise DataError("not in a base that IPFS uses (b, k, z, f or u)")


def _base32(body: str, upper: bool) -> bytes:
    if body != (body.upper() if upper else body.lower()):
        raise DataError("mixes upper and lower case")
    body = body.lower()
    size, spare = divmod(5 * len(body), 8)
    if not _BASE32.fullmatch(body) or spare >= 5:
        raise DataError("not base32")
    number = int("0" + body.translate(_TO_PYTHON), 32)
    if number & (1 << spare) - 1:
        raise DataError("not base32 (bits are left over)")
    return (number >> spare).to_bytes(size, "big")


def _base16(body: str) -> bytes:
    try:
        return binascii.unhexlify(body)
    except (binascii.Error, ValueError):
        raise DataError("not base16") from None


def _base64url(body: str) -> bytes:
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DataError("not base64url") from None
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != body:
        raise DataError("not base64url (bits are left over)")
    return data


def _to_digits(data: bytes, alphabet: str) -> str:
    """Write a number in the base of an alphabet; a leading zero byte is a leading zero digit."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, len(alphabet))
        digits.append(alphabet[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return alphabet[0] * zeros + "".join(reversed(digits))


def _from_digits(text: str, alphabet: str) -> bytes:
    if len(text) > MAX_TEXT:
        raise DataError(f"{len(text):,} characters, too long for IPFS")
    number = 0
    for letter in text:
        digit = alphabet.find(letter)
        if digit < 0:
            raise DataError(f"{letter!r} is not of base{len(alphabet)}")
        number = number * len(alphabet) + digit
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
