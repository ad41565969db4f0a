"""Tars whose samples are all built alike, as nearly every writer makes them: read fast.

The first sample says which members a sample has, in which order, and whether times in PAX headers
stand before them. If the others are no different, the headers of a thousand samples lie in one
matrix, and are checked all at once by numpy: the same checks that ``tar`` makes one by one.
Whatever is different in any way is left to ``tar``, which knows all kinds of tars and says what
is wrong with them: ``IrregularTarError`` is raised, and means nothing but that.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import tar
from .images import MAX_BYTES
from .sources.base import MAX_CAPTION_BYTES, image_member
from .tar_matrix import DIGITS, FILE, NAME, Bytes, octal, plain_headers, stem_lengths, times

BLOCK = tar.BLOCK
_BATCH = 1000
_TIMED = 3 * BLOCK  # a PAX header, the time it tells, and the member's own header
_ZEROS = b"\0" * BLOCK

Read = Callable[[int, int], bytes]


class IrregularTarError(Exception):
    """This tar takes the slow way."""


@dataclass(frozen=True)
class Batch:
    """Neighbouring samples: n of them, each of the m members that ``extensions`` names.

    ``starts`` and ``ends`` are int64 (n,), ``data`` and ``sizes`` int64 (n, m), ``uids`` 32 n
    hex digits; ``keys`` holds all keys one after the other, ``key_lengths`` is (n,).
    """

    extensions: tuple[str, ...]
    uids: bytes
    keys: bytes
    key_lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    data: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class _Shape:
    """What all samples have in common: a member's extension, and bytes from its start to its data.

    ``image`` and ``values`` are the positions of the image and of the json among the members.
    """

    extensions: tuple[str, ...]
    leads: tuple[int, ...]
    image: int
    values: int


def uniform_batches(read: Read, total: int, span: int) -> Iterator[Batch]:
    """Yield the samples of a tar of ``total`` bytes and the uids in their json.

    ``read(offset, size)`` returns bytes of it, fewer where it ends; ``span`` bytes are read
    behind each image. Raises IrregularTarError; what was yielded before is right, but not all.
    """
    try:
        shape, start = _first(read, total)
        walk = _Walk(read, total, span, shape, start)
        seen: set[bytes] = set()
        while not walk.done:
            yield walk.batch(seen)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, DataError):
        raise IrregularTarError from None


def _first(read: Read, total: int) -> tuple[_Shape, int]:
    """Return the shape of the first sample, and where that starts."""
    sample = next(tar.samples_in(tar.Window(read, 8 * BLOCK, total), ""), None)
    image = image_member(sample) if sample is not None else None
    if sample is None or image is None or "json" not in sample.members:
        raise IrregularTarError
    members = list(sample.members.values())
    leads = tuple(member.data - member.start for member in members)
    apart = any(one.end != other.start for one, other in itertools.pairwise(members))
    if apart or not set(leads) <= {BLOCK, _TIMED}:
        raise IrregularTarError
    names = tuple(sample.members)
    return _Shape(names, leads, members.index(image), names.index("json")), sample.start


class _Walk:
    """Goes from header to header, as fast as Python can; all checks come afterwards."""

    def __init__(self, read: Read, total: int, span: int, shape: _Shape, start: int) -> None:
        self._read, self._total, self._span, self._shape = read, total, span, shape
        self._base, self._at = start, 0
        self._window = read(start, span)
        self.done = False

    def batch(self, seen: set[bytes]) -> Batch:
        """Return the next samples, at least one; ``seen`` are the keys before, and grows."""
        heads: list[bytes] = []
        sizes: list[int] = []
        starts: list[int] = []
        uids: list[str] = []
        plan = [
            (lead, position == self._shape.image, position == self._shape.values)
            for position, lead in enumerate(self._shape.leads)
        ]
        parse, base, at, window = json.JSONDecoder().raw_decode, self._base, self._at, self._window
        while len(starts) < _BATCH:
            starts.append(base + at)
            for lead, is_image, is_values in plan:
                head = window[at : at + lead]
                if len(head) < lead:
                    base, at = base + at, 0
                    window = self._read(base, self._span)
                    head = window[:lead]
                heads.append(head)
                size = int(head[lead - 388 : lead - 377], 8)
                if size < 0:
                    raise IrregularTarError
                sizes.append(size)
                at += lead
                if is_image:
                    base, at = base + at + (size + 511 & -512), 0
                    if base > self._total:
                        raise IrregularTarError
                    window = self._read(base, self._span)
                    continue
                if is_values:
                    raw = window[at : at + size]
                    if len(raw) < size:
                        if size > MAX_CAPTION_BYTES:
                            raise IrregularTarError
                        base, at = base + at, 0
                        window = self._read(base, size + self._span)
                        raw = window[:size]
                    text = raw.decode()
                    values, end = parse(text)
                    if end < len(text) and text[end:].strip(" \t\r\n"):
                        raise IrregularTarError
                    uids.append(values["uid"])
                at += size + 511 & -512
            head = window[at : at + BLOCK]
            if len(head) < BLOCK:
                base, at = base + at, 0
                window = self._read(base, self._span)
                head = window[:BLOCK]
            if head == _ZEROS:
                self.done = True
                break
        self._base, self._at, self._window = base, at, window
        return _checked(self._shape, heads, sizes, [*starts, base + at], uids, seen)


def _checked(
    shape: _Shape, heads: list[bytes], sizes: list[int], starts: list[int], uids: list[str],
    seen: set[bytes],
) -> Batch:  # fmt: skip
    """Check all that was taken for granted on the way; return the samples."""
    rows = np.frombuffer(b"".join(heads), np.uint8).reshape(len(uids), sum(shape.leads))
    found = np.array(sizes, np.int64).reshape(len(uids), len(shape.leads))
    data = np.empty_like(found)
    begin, where = 0, np.array(starts[:-1], np.int64)
    stem: Bytes | None = None
    length = np.zeros(len(uids), np.int64)
    for position, (extension, lead) in enumerate(zip(shape.extensions, shape.leads, strict=True)):
        if lead == _TIMED:
            pax, text = rows[:, begin : begin + BLOCK], rows[:, begin + BLOCK : begin + 2 * BLOCK]
            _demand(times(pax, text).all())
        head = rows[:, begin + lead - BLOCK : begin + lead]
        begin += lead
        _demand(plain_headers(head, FILE).all())
        _demand((octal(head[:, DIGITS])[0] == found[:, position]).all())
        name, length = _stem(head[:, NAME], extension)
        if stem is not None:
            _demand(np.array_equal(name, stem))
        stem = name
        data[:, position] = where + lead
        where = where + lead + -(-found[:, position] // BLOCK) * BLOCK
    _demand(stem is not None and (where == starts[1:]).all())
    _demand((found <= tar.MAX_MEMBER_BYTES).all() and (found[:, shape.image] <= MAX_BYTES).all())
    _demand((found[:, shape.values] <= MAX_CAPTION_BYTES).all())
    digits = "".join(uids).encode("ascii")
    hexes = np.frombuffer(digits, np.uint8)
    _demand(set(map(len, uids)) == {32})
    _demand((((hexes >= 48) & (hexes <= 57)) | ((hexes >= 97) & (hexes <= 102))).all())
    assert stem is not None
    texts = set(stem.view(f"S{stem.shape[1]}")[:, 0].tolist())
    _demand(len(texts) == len(uids) and seen.isdisjoint(texts))
    seen |= texts
    return Batch(
        shape.extensions, digits, stem[stem != 0].tobytes(), length, np.array(starts[:-1]),
        np.array(starts[1:]), data, found,
    )  # fmt: skip


def _demand(holds: object) -> None:
    if not holds:
        raise IrregularTarError


def _stem(names: Bytes, extension: str) -> tuple[Bytes, NDArray[np.int64]]:
    """Check names of 100 bytes; return them without their extension, and their lengths."""
    width = int(names.any(0).sum())  # the checks look at no more than they must
    _demand(width and not names[:, width:].any())
    names = np.ascontiguousarray(names[:, :width])
    length, passed = stem_lengths(names, extension.encode())
    _demand(passed.all())
    longest = int(length.max())
    stem = np.where(np.arange(longest) < length[:, None], names[:, :longest], np.uint8(0))
    return stem, length
