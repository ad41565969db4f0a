"""Ranges of bytes, wherever they lie: a local file, an HTTP server, an object store.

A *place* is a path, an ``http(s)://`` URL, or the URL of an object store that fsspec knows
(``s3://``, ``gs://``, ...). Each is known by its size and a version (time of change, ETag), so
that a file that changes between two reads is noticed. This module imports little: the command
that streams a virtual shard must start at once.
"""

from __future__ import annotations

import os
import re
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DataError, MissingError, UnsafeInputError
from .http import http_get, one_line, refuse_status, version_of
from .patience import patiently

if TYPE_CHECKING:
    from concurrent.futures import Future
    from http.client import HTTPResponse

OPEN_FILES = 128
LOCAL_SPAN = 1 << 20
REMOTE_SPAN = 8 << 20
REMOTE_GAP = 256 << 10
"""Reading this much too much costs less than asking a server once more."""
ANNOUNCED = 32
"""Local ranges fetched ahead: enough to keep a disk busy."""
AHEAD = 8
"""Requests under way at a time."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,16})-(\d{1,16})/(\d{1,16})")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when it was indexed: where it lies, bytes, and what changes with it."""

    place: str
    size: int
    version: str


def is_remote(place: str) -> bool:
    """Tell whether a place is a URL."""
    return "://" in place and _SCHEME.match(place) is not None  # asked of every range


def join(root: str, name: str) -> str:
    """Return the place of the file ``name`` in a folder; the name is a plain one."""
    return f"{root.rstrip('/')}/{name}"


# -- one open file ---------------------------------------------------------------------------


class Ranges(ABC):
    """An open file: ``size`` and ``version`` as they are now; ``requests`` made so far."""

    place: str
    size: int
    version: str

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; DataError if they are not there any more."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise changed(self.place)
        data = self.read_at(offset, length)
        if len(data) != length:
            raise changed(self.place)
        return data

    def read_into(self, offset: int, room: memoryview) -> None:
        """Fill ``room`` with the bytes at ``offset``, as ``read`` does."""
        room[:] = self.read(offset, len(room))

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``: fewer where the file ends."""

    def announce(self, offset: int, length: int) -> None:  # noqa: B027
        """Say what will be read soon, so that it is fetched meanwhile."""

    def is_changed(self) -> bool:
        """Tell whether the file is another one than when it was opened."""
        return False

    def close(self) -> None:  # noqa: B027
        """Let go of the file."""


class LocalRanges(Ranges):
    """A file of this machine."""

    def __init__(self, place: str) -> None:
        try:
            self._descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from None
        self.place = place
        self.size, self.version = self._stat()

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``."""
        return os.pread(self._descriptor, length, offset)

    def read_into(self, offset: int, room: memoryview) -> None:
        """Fill ``room``, without a copy."""
        if offset < 0 or offset + len(room) > self.size:
            raise changed(self.place)
        if os.preadv(self._descriptor, [room], offset) != len(room):
            raise changed(self.place)

    def announce(self, offset: int, length: int) -> None:
        """Let the system read ahead; ranges apart from each other are none of its guesses."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def is_changed(self) -> bool:
        """Compare size and time of change with those at the opening."""
        return self._stat() != (self.size, self.version)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _stat(self) -> tuple[int, str]:
        status = os.fstat(self._descriptor)
        return status.st_size, str(status.st_mtime_ns)


class HttpRanges(Ranges):
    """A file on an HTTP server that answers range requests; connections are kept and shared."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._moved: str | None = None
        response, data = self._get(0, 1)
        found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
        if response.status == 200 and not data:
            self.size = 0
        elif response.status != 206 or found is None:
            raise DataError(f"{place}: the server does not answer range requests; download it")
        else:
            self.size = int(found[3])
        self.version = version_of(response)

    def read_at(self, offset: int, length: int) -> bytes:
        """Ask for a range; the server must still have the same file."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        response, data = self._get(offset, length)
        found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
        if found is None or response.status != 206 or int(found[1]) != offset:
            raise DataError(f"{self.place}: the server does not answer range requests; download it")
        if int(found[3]) != self.size or version_of(response) != self.version:
            raise changed(self.place)
        return data

    def _get(self, offset: int, length: int) -> tuple[HTTPResponse, bytes]:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        response, data, url = http_get(self._moved or self.place, wanted, length)
        if response.status in (401, 403) and self._moved:  # a signed address that has expired
            response, data, url = http_get(self.place, wanted, length)
        refuse_status(response, self.place)
        self._moved = url if url != self.place else None
        return response, data


class StoreRanges(Ranges):
    """A file in an object store, through fsspec."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._system, self._path = store(place)
        self.size, self.version = self._info()

    def read_at(self, offset: int, length: int) -> bytes:
        """Ask the store for a range."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""

        def read() -> bytes:
            data = bytes(self._system.cat_file(self._path, start=offset, end=end))
            if len(data) < end - offset:
                raise ConnectionError(f"{len(data):,} of {end - offset:,} bytes came")
            return data

        try:
            return patiently(self.place, read)
        except FileNotFoundError:
            raise MissingError(f"{self.place}: no such file") from None

    def is_changed(self) -> bool:
        """Ask again: what fsspec reads does not say which version it is from."""
        return self._info() != (self.size, self.version)

    def _info(self) -> tuple[int, str]:
        try:
            self._system.invalidate_cache(self._path)  # a listing from before may be stale
            info = patiently(self.place, lambda: self._system.info(self._path))
        except FileNotFoundError:
            raise MissingError(f"{self.place}: no such file") from None
        return int(info["size"]), version_in(info)


def version_in(info: Mapping[str, Any]) -> str:
    """Return what changes with a file, of what its store tells of it."""
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
    return next((str(info[name]) for name in known if info.get(name)), "")


def open_ranges(place: str, stamp: Stamp | None = None) -> Ranges:
    """Open a place. Raises DataError, MissingError, UnsafeInputError.

    Where a server has to prove what it gives (``proved+http://``), the stamp says of what.
    """
    if not is_remote(place):
        return LocalRanges(place)
    if place.startswith(("proved+http://", "proved+https://")) and stamp is not None:
        from .proved import ProvedRanges

        return ProvedRanges(place, stamp.size, stamp.version)
    if place.startswith(("http://", "https://")):
        return HttpRanges(place)
    return StoreRanges(place)


def fetch(place: str, limit: int) -> bytes | None:
    """Return a whole small remote file, None if there is none; over ``limit`` bytes is unsafe."""
    if place.startswith(("http://", "https://")):
        response, data, _ = http_get(place, {}, limit + 1)
        if response.status in (404, 410):
            return None
        refuse_status(response, place)
    else:
        system, path = store(place)
        try:
            data = patiently(place, lambda: bytes(system.cat_file(path, start=0, end=limit + 1)))
        except FileNotFoundError:
            return None
    if len(data) > limit:
        raise UnsafeInputError(f"{place}: larger than {limit:,} bytes; refused")
    return data


def store(place: str) -> tuple[Any, str]:
    """Return fsspec's file system and path of a URL."""
    if "::" in place:
        raise UnsafeInputError(f"{place}: chained URLs are refused")
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(place)
        if hasattr(system, "retries"):  # s3fs tries again by itself; here it is done for all
            system.retries = 1
        return system, path
    except ImportError as error:
        raise MissingError(
            f"{place}: needs the fsspec package of its store (s3fs for s3://, gcsfs for gs://): "
            f"{one_line(error)}"
        ) from None
    except ValueError as error:
        raise DataError(f"{place}: not a known kind of store: {one_line(error)}") from None


def changed(place: str) -> DataError:
    """Return the error of a file that is not as it was."""
    return DataError(f"{place}: changed while it was read; run the same command again")


def stale(stamp: Stamp) -> DataError:
    """Return the error of a file that is not the one that was indexed."""
    return DataError(
        f"{stamp.place}: has changed since it was indexed; run 'datacomp shards index' and then "
        "this again"
    )


# -- many ranges of many files ---------------------------------------------------------------


class OpenFiles:
    """Keeps the files used last open, and makes sure that none changes meanwhile.

    Those of this machine apart from the others, which threads open and which take longer.
    """

    def __init__(self) -> None:
        self._local, self._remote = _Kept(), _Kept()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        whole = exc_info[0] is None
        found = [kept.close(compare=whole) for kept in (self._local, self._remote)]
        for place in filter(None, found):
            raise changed(place)

    def read(self, place: str, offset: int, length: int, stamp: Stamp | None = None) -> bytes:
        """Return ``length`` bytes at ``offset``; a file that is not as stamped is a DataError."""
        return self._of(place).get(place, stamp).read(offset, length)

    def read_into(
        self, place: str, offset: int, room: memoryview, stamp: Stamp | None = None
    ) -> None:
        """Fill ``room`` with the bytes at ``offset``, as ``read`` does."""
        self._of(place).get(place, stamp).read_into(offset, room)

    def announce(self, place: str, offset: int, length: int, stamp: Stamp | None = None) -> None:
        """Say what will be read soon."""
        self._of(place).get(place, stamp).announce(offset, length)

    def _of(self, place: str) -> _Kept:
        return self._remote if is_remote(place) else self._local


class _Kept:
    """At most OPEN_FILES open files; the one not used for longest is closed for a new one."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, Ranges] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, place: str, stamp: Stamp | None) -> Ranges:
        """Return an open file."""
        with self._lock:
            file = self._files.get(place)
            if file is None:
                return self._open(place, stamp)
            self._files.move_to_end(place)
            return file

    def close(self, compare: bool) -> str | None:
        """Close all files; return the place of one that has changed, if they are to be compared."""
        found = None
        try:
            while self._files and compare:
                found = self._close_oldest() or found
        finally:
            for file in self._files.values():
                file.close()
            self._files.clear()
        return found

    def _open(self, place: str, stamp: Stamp | None) -> Ranges:
        if len(self._files) >= OPEN_FILES:
            found = self._close_oldest()
            if found:
                raise changed(found)
        file = open_ranges(place, stamp)
        if stamp is not None and (stamp.size, stamp.version) != (file.size, file.version):
            file.close()
            raise stale(stamp)
        self._files[place] = file
        return file

    def _close_oldest(self) -> str | None:
        """Close the file not used for longest; return its place if it has changed."""
        place, file = self._files.popitem(last=False)
        try:
            return place if file.is_changed() else None
        finally:
            file.close()


Span = tuple[int, int, int, list[tuple[int, int]]]
"""A file's number, an offset and a length, and the (offset, length) wanted inside it."""


def coalesce(
    places: Iterable[tuple[int, int, int]], limits: Callable[[int], tuple[int, int]]
) -> Iterator[Span]:
    """Join neighbouring ranges (file, offset, length), keeping their order.

    Ranges of one file that follow each other become one span; ``limits`` says of a file how many
    bytes there may be between them, and how many in a span.
    """
    file = start = end = -1
    gap = limit = 0
    inside: list[tuple[int, int]] = []
    for number, offset, length in places:
        joins = number == file and 0 <= offset - end <= gap and offset + length - start <= limit
        if not joins:
            if inside:
                yield file, start, end - start, inside
            if number != file:
                gap, limit = limits(number)
            file, start, inside = number, offset, []
        inside.append((offset - start, length))
        end = offset + length
    if inside:
        yield file, start, end - start, inside


def read_places(
    files: list[Stamp], places: Iterable[tuple[int, int, int]], opened: OpenFiles
) -> Iterator[memoryview]:
    """Yield the bytes of each range (file, offset, length), in the order given.

    Local neighbours are read together, and announced before; remote ranges also across small
    gaps, several requests at a time.
    """
    for (number, start, whole, inside), future in _ahead(files, places, opened):
        file = files[number]
        data = opened.read(file.place, start, whole, file) if future is None else future.result()
        view = memoryview(data)
        for offset, length in inside:
            yield view[offset : offset + length]


def read_batches(
    files: list[Stamp], places: Iterable[tuple[int, int, int]], opened: OpenFiles, room: bytearray
) -> Iterator[tuple[int, bytearray]]:
    """Yield the same ranges many at a time: how many, and the bytes where they follow each other.

    These are read into ``room`` again and again; only a range that is larger has its own.
    """
    free = memoryview(room)
    count = end = 0
    for (number, start, whole, inside), future in _ahead(files, places, opened):
        file = files[number]
        if future is None and whole <= len(room):  # local ranges have nothing between them
            if end + whole > len(room):
                yield count, room
                count = end = 0
            opened.read_into(file.place, start, free[end : end + whole], file)
            count, end = count + len(inside), end + whole
            continue
        data = opened.read(file.place, start, whole, file) if future is None else future.result()
        view = memoryview(data)
        for offset, length in inside:
            if count and end + length > len(room):
                yield count, room
                count = end = 0
            if length > len(room):
                yield 1, bytearray(view[offset : offset + length])
                continue
            free[end : end + length] = view[offset : offset + length]
            count, end = count + 1, end + length
    if count:
        yield count, room


def _ahead(
    files: list[Stamp], places: Iterable[tuple[int, int, int]], opened: OpenFiles
) -> Iterator[tuple[Span, Future[bytes] | None]]:
    """Yield spans that are read ahead: the system reads the local ones, threads the others."""
    waiting: deque[tuple[Span, Future[bytes] | None]] = deque()
    threads = None
    asked = 0

    def limits(number: int) -> tuple[int, int]:
        remote = is_remote(files[number].place)
        return (REMOTE_GAP, REMOTE_SPAN) if remote else (0, LOCAL_SPAN)

    def read(span: Span) -> bytes:
        file = files[span[0]]
        return opened.read(file.place, span[1], span[2], file)

    def first() -> tuple[Span, Future[bytes] | None]:
        nonlocal asked
        span, future = waiting.popleft()
        asked -= future is not None
        return span, future

    try:
        for span in coalesce(places, limits):
            file = files[span[0]]
            if is_remote(file.place):
                while asked >= AHEAD:
                    yield first()
                if threads is None:
                    from concurrent.futures import ThreadPoolExecutor

                    threads = ThreadPoolExecutor(AHEAD)
                waiting.append((span, threads.submit(read, span)))
                asked += 1
            else:
                opened.announce(file.place, span[1], span[2], file)
                waiting.append((span, None))
            if len(waiting) > ANNOUNCED:
                yield first()
        while waiting:
            yield first()
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()
        if threads is not None:
            threads.shutdown()
