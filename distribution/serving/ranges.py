"""Which bytes an HTTP request asks for: conditions and ranges (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import itertools
import re

MAX_PARTS = 32
"""Ranges of one request; more are refused, since each costs the server more than the client."""

_UNIT = re.compile(r"\s*bytes\s*=(.*)", re.DOTALL | re.IGNORECASE)
_SPEC = re.compile(r"(\d{0,19})-(\d{0,19})")


class Unsatisfiable(Exception):  # noqa: N818  an answer (416), not a failure
    """No byte of the file is in the ranges asked for, or they are too many or overlap."""


def parse_ranges(header: str | None, size: int) -> list[tuple[int, int]] | None:
    """Return the (start, end) asked for, end exclusive, or None for the whole file.

    A header that is not a valid range of bytes is ignored, as the RFC wants. Raises Unsatisfiable
    where nothing of it lies in the file, where ranges overlap and for more than ``MAX_PARTS``.
    """
    unit = _UNIT.fullmatch(header) if header else None
    if unit is None:
        return None
    texts = [text.strip() for text in unit[1].split(",") if text.strip()]
    specs = [_SPEC.fullmatch(text) for text in texts[: MAX_PARTS + 1]]
    ranges = []
    for spec in specs:
        if spec is None or not (spec[1] or spec[2]):
            return None
        if not spec[1]:
            start, end = max(size - int(spec[2]), 0), size
        else:
            start, end = int(spec[1]), int(spec[2]) + 1 if spec[2] else size
            if spec[2] and int(spec[2]) < start:
                return None
        if start < min(end, size):
            ranges.append((start, min(end, size)))
    if not texts:
        return None
    ordered = sorted(ranges)
    overlap = any(after[0] < before[1] for before, after in itertools.pairwise(ordered))
    if not ranges or overlap or len(texts) > MAX_PARTS:
        raise Unsatisfiable
    return ranges


def lists_tag(header: str, tag: str) -> bool:
    """Tell whether an If-Match or If-None-Match header names an entity tag (weakly) or is ``*``."""
    if header.strip() == "*":
        return True
    return any(found.strip().removeprefix("W/") == tag for found in header.split(","))


def wanted_range(headers: dict[str, str], tag: str) -> str | None:
    """Return the Range header if it is to be obeyed: If-Range must name the very same bytes."""
    condition = headers.get("if-range")
    if condition is not None and condition.strip() != tag:
        return None
    return headers.get("range")
