"""What the keeper's machine remembers of the files it has read: ``RELEASES/.state``.

``records/`` holds the digests of each file by its SHA-256, ``seen.jsonl`` which file (path, size,
time of change) had which SHA-256. Both are written while a version is being made, so that a
killed run does not read a file twice. Neither is needed to believe a release, and what is damaged
is as good as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...durable import alone, partial_path, storage_errors, write_text
from ...errors import DataError
from .digests import Record

FOLDER = ".state"


@dataclass(frozen=True)
class Seen:
    """A file as it was when it was read: ``sha256`` is that of what is published of it."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


class State:
    """The memory of one folder of releases."""

    def __init__(self, releases: Path) -> None:
        self.folder = releases / FOLDER
        self.objects = self.folder / "objects"
        """Files that could not be linked, by SHA-256, until a version has them."""
        self.staging = self.folder / "staging"
        self._journal = self.folder / "seen.jsonl"
        self._records = f"{self.folder}/records"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one writer at a time; make it if need be.

        What was made for a command that was refused before it wrote anything is removed again.
        """
        with storage_errors(self.folder):
            made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        busy = f"{self.folder.parent}: another release is being made there; wait for it"
        try:
            with alone(self.folder, busy):
                yield
        except BaseException:
            with contextlib.suppress(OSError):  # it holds something
                for path in made:
                    path.rmdir()
            raise

    # -- digests ----------------------------------------------------------------------------

    def record(self, sha256: str) -> Record | None:
        """Return the digests of a file, or None if they are not known."""
        path = self._record_path(sha256)
        try:
            with open(path, "rb") as file:
                data = file.read()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                return None
            return Record.decode(data[32:], path)
        except (OSError, DataError):
            return None

    def keep(self, record: Record) -> None:
        """Remember the digests of a file.

        They are not flushed to the disk, for they check themselves.
        """
        path = Path(self._record_path(record.sha256))
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            data = record.encode()
            partial_path(path).write_bytes(hashlib.sha256(data).digest() + data)
            partial_path(path).replace(path)

    def forget(self, sha256: str) -> None:
        """Drop the digests of a file."""
        Path(self._record_path(sha256)).unlink(missing_ok=True)

    def _record_path(self, sha256: str) -> str:
        return f"{self._records}/{sha256[:2]}/{sha256}"  # of every file: a Path takes ten times it

    # -- files ------------------------------------------------------------------------------

    def seen(self) -> dict[str, Seen]:
        """Return the files that were read, by path; of several readings the last counts."""
        found: dict[str, Seen] = {}
        with contextlib.suppress(FileNotFoundError), self._journal.open("rb") as file:
            for line in file:
                try:
                    seen = Seen(**json.loads(line))
                    found[seen.path] = seen
                except (ValueError, TypeError, RecursionError):
                    continue  # a line that a killed run left torn
        return found

    def note(self, seen: Seen) -> None:
        """Remember that a file was read."""
        line = json.dumps(vars(seen), sort_keys=True).encode()
        with storage_errors(self._journal), self._journal.open("ab", buffering=0) as file:
            file.write(b"\n" + line + b"\n")  # a torn line before it stays a line of its own

    def rewrite(self, files: Iterable[Seen]) -> None:
        """Keep what is known of these files and forget the others."""
        lines = [json.dumps(vars(seen), sort_keys=True) + "\n" for seen in files]
        write_text(self._journal, "".join(lines))

    def clear(self) -> None:
        """Remove what was only needed while a version was being made."""
        for folder in (self.objects, self.staging):
            shutil.rmtree(folder, ignore_errors=True)
