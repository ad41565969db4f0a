"""Images of samples as they are given out: decoded with limits and encoded anew."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ...errors import DataError
from ...pools.images import decode
from ...pools.pool import Pool
from ...pools.reading import read_place

SIDES = (256, 1280)
"""Longest side in px of a thumbnail and of a large image, at most."""
_REMEMBERED = 20_000
_KEPT_BYTES = 64 << 20


class Images:
    """Reads images by uid, remembers where those of shown pages lie, and keeps some encoded.

    Among millions, finding one sample by its uid takes longer than reading its image.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[int, tuple[Any, ...]] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._size = 0
        self._mark: tuple[int, ...] = ()

    def remember(self, rows: Iterable[dict[str, Any]], mark: tuple[int, ...]) -> None:
        """Note where the images of some samples lie; another mark forgets all others."""
        with self._lock:
            self._forget_others(mark)
            for row in rows:
                place = (row["source"], row["shard"], row["offset"], row["length"], row["sha256"])
                self._places[row["uid"]] = place
            while len(self._places) > _REMEMBERED:
                self._places.popitem(last=False)

    def kept(self, uid: int, side: int, mark: tuple[int, ...]) -> bytes | None:
        """Return an image that was encoded before."""
        with self._lock:
            self._forget_others(mark)
            return self._kept.get((uid, side))

    def encoded(self, pool: Pool, uid: int, side: int, mark: tuple[int, ...]) -> bytes | None:
        """Return a JPEG of a sample's image, at most ``side`` px; None if it cannot be read."""
        place = self._places.get(uid)
        if place is None:
            found = pool.sql(
                'SELECT source, shard, "offset", length, sha256 FROM samples WHERE uid = '
                f"{uid}::UHUGEINT"
            ).fetchall()
            if not found:
                return None
            place = found[0]
        data = read_place(pool, *place)
        if data is None:
            return None
        try:
            image = decode(data)
        except DataError:
            return None
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=85)
        encoded = buffer.getvalue()
        with self._lock:
            self._forget_others(mark)
            self._size += len(encoded) - len(self._kept.pop((uid, side), b""))
            self._kept[uid, side] = encoded
            while self._size > _KEPT_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return encoded

    def _forget_others(self, mark: tuple[int, ...]) -> None:
        if mark != self._mark:
            self._mark = mark
            self._places.clear()
            self._kept.clear()
            self._size = 0
