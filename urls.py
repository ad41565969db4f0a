"""Addresses on the web, as people and strangers write them: taken apart, joined and encoded."""

from __future__ import annotations

import re
import string
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from .errors import UnsafeInputError

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def split_url(url: str) -> SplitResult:
    """Return the parts of an HTTP URL with a host and a usable port; else UnsafeInputError."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise UnsafeInputError(f"{url[:200]!r}: not an HTTP address; refused")


def join_url(base: str, place: str) -> str:
    """Return the URL that ``place`` is, seen from ``base``; UnsafeInputError if it is none."""
    try:
        return urljoin(base, place)
    except ValueError:
        raise UnsafeInputError(f"{place[:200]!r}: not an HTTP address; refused") from None


def encode_url(url: str, encoding: str = "utf-8") -> str:
    """Return a URL, or the end of one, with what may not stand there as percent and hex digits.

    The host is left as it is. A header of an answer is encoded in ``latin-1``, as it was decoded:
    that keeps its bytes. Raises UnsafeInputError for what has no such encoding.
    """
    found = _ORIGIN.match(url)
    start = found.end() if found else 0
    try:
        # What Python could not decode of an argument goes out as the bytes that it was.
        rest = quote(url[start:], string.punctuation, encoding, "surrogateescape")
    except ValueError:
        raise UnsafeInputError(f"{url[:200]!r}: not an HTTP address; refused") from None
    return url[:start] + rest
