"""One file under way: what is missing of it, who gave what, and whether it is right."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from ...durable import read_json, storage_errors, write_json
from ...errors import DatacompError, MissingError
from .folder import CHUNK, copy_spans
from .spans import both, joined, size_of, without
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .blocks import Layers
    from .mirror import Mirror
    from .order import Wanted
    from .pieces import Pieces, Read
    from .source import Source
    from .spans import Spans

MAX_GAPS = 1 << 24


class Yielded(Exception):  # noqa: N818  a change of hands, not a failure
    """The file goes on from another source."""


class Job:
    """A file being fetched into ``prepared``; one thread works on it at a time.

    ``missing`` holds the spans still to be fetched, ``elsewhere`` how many bytes of them a source
    has put where it keeps its own; ``given`` holds the (start, end, source) of what was fetched,
    so that a wrong byte has a name to it.

    A file grows from its beginning, so that its size tells a later run how far it got. Where it
    has gaps, they are written down beside it before anything behind them is.
    """

    def __init__(self, wanted: Wanted, prepared: Path) -> None:
        self.wanted, self.prepared = wanted, prepared
        self.banned: dict[Source, str] = {}
        self.missing: Spans = [(0, wanted.size)] if wanted.size else []
        self.elsewhere = 0
        self.given: list[tuple[int, int, Source]] = []
        self.kept_for: Source | None = None
        self.wanted_by: Source | None = None
        self._begin_hash()

    @property
    def left(self) -> int:
        """Bytes still to be fetched."""
        return size_of(self.missing) - self.elsewhere

    def resume(self) -> int:
        """Go on with what is prepared already; return how many bytes that is."""
        try:
            size = os.stat(self.prepared).st_size
        except FileNotFoundError:
            self._gaps.unlink(missing_ok=True)
            return 0
        gaps = self._read_gaps()
        if size > self.wanted.size or gaps is None:
            os.truncate(self.prepared, 0)
            size, gaps = 0, []
        self.missing = joined([*gaps, (size, self.wanted.size)])
        return self.wanted.size - self.left

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
                self._note_gaps()
        finally:
            os.close(descriptor)

    def receive(self, staged: Path, spans: Spans, source: Source) -> None:
        """Copy spans that are missing from where a source has put them. Raises StorageError."""
        self.elsewhere = 0
        if not spans:
            return
        left = without(self.missing, spans)
        with storage_errors(self.prepared):
            self._note_gaps(left)
            copy_spans(staged, self.prepared, spans)
        self.missing = left
        self.given += ((start, end, source) for start, end in spans)

    @property
    def _gaps(self) -> Path:
        return self.prepared.with_name(f"{self.prepared.name}.gaps")

    def _note_gaps(self, missing: Spans | None = None) -> None:
        """Write down what is missing, unless it is just the end."""
        missing = self.missing if missing is None else missing
        if len(missing) > 1 or (missing and missing[0][1] < self.wanted.size):
            write_json(self._gaps, missing)
        else:
            self._gaps.unlink(missing_ok=True)

    def _read_gaps(self) -> Spans | None:
        """Return the gaps that a run before has left, None if they cannot be made out."""
        try:
            found = [(int(start), int(end)) for start, end in read_json(self._gaps, MAX_GAPS)]
        except MissingError:
            return []
        except (DatacompError, TypeError, ValueError):
            return None
        return (
            found
            if joined(found) == found and both(found, [(0, self.wanted.size)]) == found
            else None
        )

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
        with self._opened() as descriptor:
            self._catch_up(descriptor)
        return self._sha256.hexdigest()

    def bad_blocks(self, layers: Layers | None) -> Spans | None:
        """Return the (start, end) of the wrong blocks, None where that cannot be told."""
        root = self.wanted.pieces_root
        if layers is None or root is None:
            return None
        with self._opened() as descriptor:
            return layers.bad_blocks(descriptor, self.wanted.size, root)

    def bad_pieces(self, pieces: Pieces, read: Read) -> tuple[Spans | None, bool]:
        """Return what ``Pieces.bad_spans`` does."""
        with self._opened() as descriptor:
            return pieces.bad_spans(descriptor, self.wanted.path, self.wanted.size, read)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.prepared, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def reject(self, bad: Spans | None) -> set[Source]:
        """Have wrong blocks fetched again, all of the file if None; return who gave them."""
        size = self.wanted.size
        self._begin_hash()
        if bad is None:
            givers = {source for _, _, source in self.given}
            alone = len(givers) == 1 and size_of(joined(g[:2] for g in self.given)) == size
            self.start_over()
            return givers if alone else set()
        guilty = {
            source
            for start, end, source in self.given
            if any(start < last and first < end for first, last in bad)
        }
        self.given = []
        self.missing = bad
        return guilty

    def taken_whole(self, source: Source) -> None:
        """Note that another kind of source has put the whole file where it is prepared."""
        self.missing, self.elsewhere = [], 0
        self.given = [(0, self.wanted.size, source)]
        self._gaps.unlink(missing_ok=True)
        self._begin_hash()

    def is_all_from(self, channel: str) -> bool:
        """Tell whether every byte came, in this run, from sources of a channel."""
        ranges = [(start, end) for start, end, source in self.given if source.channel == channel]
        return size_of(joined(ranges)) == self.wanted.size

    def start_over(self) -> None:
        """Throw away what was fetched."""
        os.truncate(self.prepared, 0)
        self._gaps.unlink(missing_ok=True)
        self.missing, self.given = [(0, self.wanted.size)], []
        self._begin_hash()
