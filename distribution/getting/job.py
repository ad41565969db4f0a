"""One file under way: what is missing of it, who gave what, and whether it is right."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from ...durable import storage_errors
from .folder import CHUNK
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .blocks import Layers
    from .mirror import Mirror
    from .order import Wanted
    from .source import Source


class Yielded(Exception):  # noqa: N818  a change of hands, not a failure
    """The file goes on from another source."""


class Job:
    """A file being fetched into ``prepared``; one thread works on it at a time.

    ``missing`` holds the (start, end) still to be fetched; ``given`` the (start, end, source) of
    what was, so that a wrong byte has a name to it.
    """

    def __init__(self, wanted: Wanted, prepared: Path) -> None:
        self.wanted, self.prepared = wanted, prepared
        self.banned: dict[Source, str] = {}
        self.missing = [(0, wanted.size)] if wanted.size else []
        self.given: list[tuple[int, int, Source]] = []
        self.kept_for: Source | None = None
        self.wanted_by: Source | None = None
        self._begin_hash()

    @property
    def left(self) -> int:
        """Bytes still to be fetched."""
        return sum(end - start for start, end in self.missing)

    def resume(self) -> int:
        """Go on with what is prepared already; return how many bytes that is."""
        try:
            size = os.stat(self.prepared).st_size
        except FileNotFoundError:
            return 0
        if size > self.wanted.size:
            os.truncate(self.prepared, 0)
            size = 0
        self.missing = [(size, self.wanted.size)] if size < self.wanted.size else []
        return size

    def fetch(self, mirror: Mirror, source: Source, tell: Callable[[int], None]) -> None:
        """Fetch what is missing from one mirror. Raises SourceTrouble, Yielded, StorageError."""
        with storage_errors(self.prepared):
            descriptor = os.open(self.prepared, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._catch_up(descriptor)
            while self.missing:
                start, end = self.missing[0]
                for chunk in mirror.read(self.wanted.path, self.wanted.size, start, end):
                    start = self._store(descriptor, chunk, start, end, source)
                    tell(len(chunk))
                    if self.wanted_by is not None:
                        raise Yielded
                if start < end:
                    raise SourceTrouble("broke off", Consequence.RETRY)
        finally:
            os.close(descriptor)

    def _store(self, descriptor: int, chunk: bytes, start: int, end: int, source: Source) -> int:
        view = memoryview(chunk)
        with storage_errors(self.prepared):
            at = start
            while view:
                written = os.pwrite(descriptor, view, at)
                at, view = at + written, view[written:]
        if self._hashed == start:
            self._sha256.update(chunk)
            self._hashed = at
        if self.given and self.given[-1][1:] == (start, source):
            self.given[-1] = (self.given[-1][0], at, source)
        else:
            self.given.append((start, at, source))
        self.missing[:1] = [(at, end)] if at < end else []
        return at

    def _catch_up(self, descriptor: int) -> None:
        """Hash what was there before, up to the first gap."""
        until = self.missing[0][0] if self.missing else self.wanted.size
        while self._hashed < until:
            data = os.pread(descriptor, min(CHUNK, until - self._hashed), self._hashed)
            if not data:
                break
            self._sha256.update(data)
            self._hashed += len(data)

    def _begin_hash(self) -> None:
        self._sha256, self._hashed = hashlib.sha256(), 0

    # -- is it right? -----------------------------------------------------------------------

    def digest(self) -> str:
        """Return the SHA-256 of what was fetched; all of it must be there."""
        if not os.path.exists(self.prepared):
            with storage_errors(self.prepared):
                self.prepared.touch()
        descriptor = os.open(self.prepared, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._catch_up(descriptor)
        finally:
            os.close(descriptor)
        return self._sha256.hexdigest()

    def bad_blocks(self, layers: Layers | None) -> list[tuple[int, int]] | None:
        """Return the (start, end) of the wrong blocks, None where that cannot be told."""
        root = self.wanted.pieces_root
        if layers is None or root is None:
            return None
        descriptor = os.open(self.prepared, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return layers.bad_blocks(descriptor, self.wanted.size, root)
        finally:
            os.close(descriptor)

    def find_faults(self, layers: Layers | None) -> tuple[set[Source], int] | None:
        """Find the wrong blocks; they are missing again. Return who gave them and their number.

        Returns None if every block is as the manifest says although the whole is not. Where no
        digests of blocks are known, the whole file is one.
        """
        size = self.wanted.size
        bad = self.bad_blocks(layers)
        if bad == []:
            return None
        self._begin_hash()
        if bad is None:
            givers = {source for _, _, source in self.given}
            alone = len(givers) == 1 and sum(end - start for start, end, _ in self.given) == size
            self.start_over()
            return (givers if alone else set()), 1
        guilty = {
            source
            for start, end, source in self.given
            if any(start < last and first < end for first, last in bad)
        }
        self.given = []
        self.missing = bad
        return guilty, len(bad)

    def taken_whole(self, source: Source) -> None:
        """Note that another kind of source has put the whole file where it is prepared."""
        self.missing, self.given = [], [(0, self.wanted.size, source)]
        self._begin_hash()

    def is_all_from(self, channel: str) -> bool:
        """Tell whether every byte came, in this run, from sources of a channel."""
        ranges = [(start, end) for start, end, source in self.given if source.channel == channel]
        return sum(end - start for start, end in ranges) == self.wanted.size

    def start_over(self) -> None:
        """Throw away what was fetched."""
        os.truncate(self.prepared, 0)
        self.missing, self.given = [(0, self.wanted.size)], []
        self._begin_hash()
