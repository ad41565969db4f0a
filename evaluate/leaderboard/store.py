"""A leaderboard's folder: ``SCALE/TRACK/ID`` for each submission, whole or not there at all.

The tree is plain files, so it can be a git repository that takes pull requests, a folder behind a
web server, or an IPFS directory. Several writers may add to it at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...durable import fsync_directory, read_json, storage_errors
from ...errors import DatacompError, DataError, MissingError, UsageError
from ...pools.uids import UidArray
from ..scales import SCALES
from .check import Report, check
from .layout import MAX_RECORD_BYTES, RECORD, RESULTS, list_files, unpack
from .record import TRACKS, Record

INCOMING = ".incoming-"
MAX_ARCHIVE_BYTES = 4 << 30


class RefusedError(DataError):
    """A submission that does not hold; ``report`` says which rules, and where."""

    def __init__(self, where: str, report: Report) -> None:
        more = len(report.refused) - 1
        also = f" (and {more} more; see 'leaderboard check')" if more else ""
        super().__init__(f"{where}: refused: {report.refused[0]}{also}")
        self.report = report


class DuplicateError(UsageError):
    """A submission whose results another one has already; ``id`` is that one's."""

    def __init__(self, message: str, other: str) -> None:
        super().__init__(message)
        self.id = other


@contextlib.contextmanager
def incoming(store: Path) -> Iterator[Path]:
    """Yield an empty hidden folder in the store, of this caller alone; it is removed afterwards.

    It is locked while it is in use, so that :func:`sweep` knows what a killed writer left.
    """
    with storage_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        with locked(store):
            folder = Path(tempfile.mkdtemp(prefix=INCOMING, dir=store))
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def take(bundle: Path | str, folder: Path) -> None:
    """Copy a submission, a folder or a plain tar, into a new ``folder``; nothing else comes along.

    Raises MissingError where there is none, UnsafeInputError for what has no place in one.
    """
    bundle = Path(bundle)
    if bundle.is_file():
        folder.mkdir()
        unpack(bundle, folder, MAX_ARCHIVE_BYTES)
        return
    names = list_files(bundle)
    with storage_errors(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, folder / name, follow_symlinks=False)


def add(store: Path | str, bundle: Path | str, pool: UidArray | None = None) -> tuple[Report, bool]:
    """Check a submission and add it to the store; return the report and whether it is new.

    The same submission again changes nothing. Raises RefusedError for one that does not hold and
    DuplicateError where another submission has the same results.
    """
    with incoming(Path(store)) as scratch:
        folder = scratch / "submission"
        take(bundle, folder)
        return admit(Path(store), folder, str(bundle), pool)


def admit(
    store: Path, folder: Path, name: str, pool: UidArray | None = None
) -> tuple[Report, bool]:
    """Check a folder that lies in the store's :func:`incoming`, and publish it; as :func:`add`."""
    report = check(folder, pool=pool)
    if not report.accepted or report.record is None:
        raise RefusedError(name, report)
    return report, publish(store, folder, report.record)


def publish(store: Path, folder: Path, record: Record) -> bool:
    """Move a checked folder to its place in the store; tell whether it is new there."""
    place = store / place_of(record)
    with storage_errors(place), locked(store):
        if place.is_dir():
            return False
        digests = {file.sha256 for file in record.files if file.path.startswith(f"{RESULTS}/")}
        for other in places(store):
            if digests & _results_in(other):
                raise DuplicateError(
                    f"{record.id}: its results are those of {other.name}, which is there already",
                    other.name,
                )
        for inside in (folder, *folder.rglob("*")):
            descriptor = os.open(inside, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        folder.chmod(0o755)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        fsync_directory(place.parent)
    return True


def place_of(record: Record) -> str:
    """Return where in a store a submission belongs."""
    return f"{record.scale_name}/{record.track}/{record.id}"


def _results_in(place: Path) -> set[str]:
    """Return the digests of the results of a submission that is there; none of an unsound one."""
    with contextlib.suppress(DatacompError, KeyError, TypeError):
        # The record was checked when it came, and parsing a thousand takes its time.
        files = read_json(place / RECORD, MAX_RECORD_BYTES)["files"]
        return {str(f["sha256"]) for f in files if str(f["path"]).startswith(f"{RESULTS}/")}
    return set()


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the store's lock: one writer at a time, across processes.

    The folder itself is locked, so that no file of ours stands in a repository's tree.
    """
    descriptor = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def places(store: Path | str) -> list[Path]:
    """Return the folders of all submissions in a store, in the order of their names."""
    store = Path(store)
    if not store.is_dir():
        raise MissingError(f"{store}: no such folder of submissions")
    return sorted(
        path
        for scale in SCALES
        for track in TRACKS
        for path in (store / scale / track).glob("*")
        if not path.name.startswith(".") and path.is_dir()
    )


def sweep(store: Path) -> int:
    """Remove what writers left that were killed; return how many there were."""
    found = 0
    with locked(store):
        for left in store.glob(f"{INCOMING}*"):
            held = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                found += 1
            except BlockingIOError:
                continue  # its writer is alive
            finally:
                os.close(held)
    return found
