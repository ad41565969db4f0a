"""Why a URL gave no image: one short reason each, told apart by what a retry could change.

A failure travels through img2dataset as text, ``REASON: detail``; ``reason_of`` reads it back,
and knows img2dataset's own words and urllib's, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from ...errors import UsageError, suggest

REASONS = {
    "dns": "the name of the host is not known",
    "timeout": "no answer, or no end of it, in time",
    "refused": "nothing listens there",
    "connection": "the connection broke, or the host cannot be reached",
    "tls": "no trusted certificate, or no agreement on encryption",
    "bad_answer": "what answers does not speak HTTP",
    "cut_short": "the answer ended before it was whole",
    "redirects": "sent on and on, or to nowhere",
    "host_busy": "the host asked to be left alone for longer than we wait",
    "bad_url": "not an HTTP address",
    "private_address": "an address of this machine or its network",
    "opted_out": "the site does not want its images used for this",
    "too_many_bytes": "more bytes than allowed",
    "empty": "an answer without a body",
    "not_an_image": "something else, such as a web page",
    "image_broken": "an image that does not decode",
    "too_many_pixels": "an image that would take too much memory",
    "too_small": "smaller than asked for",
    "hash_mismatch": "other bytes than those recorded: changed, or tampered with",
    "boxes_unknown": "it is not recorded where its faces are, so they cannot be blurred",
    "not_fetched": "anything else; the message stands in the parquet file beside the shard",
}
"""``http_404`` and the like are reasons, too."""

GROUPS = {"4xx": r"http_4\d\d", "5xx": r"http_5\d\d", "http": r"http_\d\d\d", "all": r".*"}

_HTTP = re.compile(r"http_\d{3}")
_OTHERS = (
    (r"disallowed by X-Robots-Tag", "opted_out"),
    (r"^hash mismatch$", "hash_mismatch"),
    (r"^image too small$", "too_small"),
    (r"^image area too large$", "too_many_pixels"),
    (r"^Image decoding error$", "image_broken"),
    (
        r"unknown url type|Invalid IPv6 URL|URL can't contain|no host given|codec can't encode",
        "bad_url",
    ),
    (r"infinite loop", "redirects"),
    (r"timed out", "timeout"),
    (r"Name or service not known|No address associated|name resolution", "dns"),
    (r"Connection refused", "refused"),
    (r"CERTIFICATE|SSL", "tls"),
    (r"IncompleteRead", "cut_short"),
    (r"Connection reset|closed connection|unreachable|No route", "connection"),
    (r"^cannot identify image file", "not_an_image"),
)


class FetchFailed(Exception):  # noqa: N818  an outcome, not a mistake
    """A URL that gave no image, and why."""

    def __init__(self, reason: str, detail: str = "") -> None:
        detail = " ".join(detail.split())[:200]
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@functools.lru_cache(1 << 12)
def reason_of(message: str) -> str:
    """Return the reason that a failure's text stands for."""
    first = message.partition(":")[0]
    if first in REASONS or _HTTP.fullmatch(first):
        return first
    status = re.match(r"HTTP Error (\d{3})", message)
    for pattern, reason in _OTHERS:
        if re.search(pattern, message):
            return reason
    return f"http_{status[1]}" if status else "not_fetched"


def retry_pattern(names: Iterable[str]) -> str:
    """Return the regular expression of the reasons that are named.

    A name is a reason, a status such as ``404``, or a group of GROUPS. Raises UsageError.
    """
    patterns: list[str] = []
    for name in names:
        if name in GROUPS:
            patterns.append(GROUPS[name])
        elif re.fullmatch(r"[1-5]\d\d", name):
            patterns.append(f"http_{name}")
        elif name in REASONS or _HTTP.fullmatch(name):
            patterns.append(name)
        else:
            known = [*GROUPS, *REASONS]
            raise UsageError(
                f"--retry {name!r}: no such reason{suggest(name, known)}; known are a status such "
                f"as 404, {', '.join(known)}"
            )
    return "|".join(dict.fromkeys(patterns))


def matches(names: Iterable[str], reason: str) -> bool:
    """Tell whether a reason is one of those that are named."""
    return re.fullmatch(retry_pattern(names), reason) is not None
