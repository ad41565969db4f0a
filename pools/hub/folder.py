"""A folder that is filled from a repository: what is here is known, and never asked for again.

``.download.jsonl`` in it names repository and commit, then each file that was verified, with its
size and time of change. So a second run reads nothing but that; a file that has changed since is
looked at again. One folder holds one commit: two are not mixed.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...durable import alone, append_line, partial_path
from ...errors import DataError, StorageError, UnsafeInputError, UsageError
from ...progress import Progress
from ..parallel import map_threads
from .listing import RemoteFile, Repository, list_repository
from .transfer import bring, digest_of

RECORD = ".download.jsonl"
MAX_RECORD_BYTES = 64 << 20
AT_ONCE = 4
"""Files that are brought at the same time."""
MEGABIT = 125_000


@dataclass(frozen=True)
class Plan:
    """What is to be brought into a folder: ``wanted`` files, of which ``missing`` are not here.

    ``names`` says under which path in the folder each file of the repository goes. ``here`` are
    the bytes of files that are missing but were begun.
    """

    folder: Path
    repository: Repository
    wanted: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]
    names: dict[str, str]
    here: int

    @property
    def total(self) -> int:
        """Bytes of all wanted files."""
        return sum(file.size for file in self.wanted)

    @property
    def left(self) -> int:
        """Bytes to bring."""
        return sum(file.size for file in self.missing) - self.here

    def seconds(self, megabits: int) -> float:
        """Return how long that takes at so many megabits a second."""
        return self.left / (megabits * MEGABIT)


def plan(
    name: str,
    folder: Path,
    choose: Callable[[Repository], Sequence[RemoteFile]],
    name_of: Callable[[RemoteFile], str] = lambda file: file.path,
    revisions: Sequence[str] = ("main",),
) -> Plan:
    """Ask the Hub what there is, ``choose`` from it, and compare with what is in the folder.

    A folder that was begun stays with the commit it was begun with. Of several ``revisions``,
    the first that has anything to choose is taken. Raises UsageError for a folder of another
    repository, DataError where there is nothing to choose.
    """
    begun, known = _read(folder)
    if begun is not None and begun[0] != name:
        raise UsageError(f"{folder}: holds files of {begun[0]}, not of {name}; name another folder")
    chosen: Sequence[RemoteFile] = ()
    repository = None
    for revision in [begun[1]] if begun is not None else revisions:
        repository = list_repository(name, revision)
        chosen = choose(repository)
        if chosen:
            break
    if repository is None or not chosen:
        raise DataError(f"{name}: the Hub has none of the files that should be there")
    names = {file.path: name_of(file) for file in chosen}
    _check_apart(name, names)
    missing = [file for file in chosen if not _is_here(folder, file, names[file.path], known)]
    here = sum(_begun(folder / names[file.path], file) for file in missing)
    return Plan(folder, repository, tuple(chosen), tuple(missing), names, here)


def carry_out(found: Plan) -> None:
    """Bring what is missing, several files at once; each is verified before it has its name.

    Raises StorageError for a disk without room and a folder that another process fills, and the
    errors of ``bring``.
    """
    busy = f"{found.folder}: another process is bringing files to it; wait for it or stop it"
    with alone(found.folder, busy):
        _carry_out(found)


def _carry_out(found: Plan) -> None:
    room = shutil.disk_usage(found.folder).free
    if found.left > room:
        raise StorageError(
            f"{found.folder}: {found.left / 1e9:,.1f} GB are to come, but the disk has "
            f"{room / 1e9:,.1f} GB left; free some space or choose another place"
        )
    begun, _ = _read(found.folder)
    record = found.folder / RECORD
    if begun is None:
        first = {"repository": found.repository.name, "commit": found.repository.commit}
        append_line(record, json.dumps(first))
    from huggingface_hub.utils import build_hf_headers

    headers = {name: value for name, value in build_hf_headers().items() if name == "authorization"}
    lock = threading.Lock()
    total = sum(file.size for file in found.missing)
    with Progress(f"getting {found.repository.name}", total, "bytes") as progress:

        def told(amount: int) -> None:
            with lock:
                progress.advance(amount)

        def get(file: RemoteFile) -> None:
            path = found.folder / found.names[file.path]
            there = path.is_file() and path.stat().st_size == file.size
            if there and digest_of(path, file) == file.digest:  # brought, but not written down
                told(file.size)
            else:
                bring(found.repository.url(file), file, path, headers, told)
            _write_down(record, path, found.names[file.path], file)

        for _ in map_threads(get, found.missing, AT_ONCE):
            pass


def _write_down(record: Path, path: Path, name: str, file: RemoteFile) -> None:
    state = {"file": name, "size": file.size, "digest": file.digest,
             "changed": path.stat().st_mtime_ns}  # fmt: skip
    append_line(record, json.dumps(state))


def _is_here(folder: Path, file: RemoteFile, name: str, known: dict[str, tuple]) -> bool:
    path = folder / name
    try:
        state = path.stat()
    except OSError:
        return False
    return known.get(name) == (file.size, file.digest, state.st_mtime_ns) and (
        state.st_size == file.size
    )


def _begun(path: Path, file: RemoteFile) -> int:
    for begun in (path, partial_path(path)):
        if begun.is_file():
            return min(begun.stat().st_size, file.size)
    return 0


def _check_apart(name: str, names: dict[str, str]) -> None:
    seen: dict[str, str] = {}
    for path, here in names.items():
        other = seen.setdefault(here.casefold(), path)
        if other != path:
            raise UnsafeInputError(f"{name}: {other!r} and {path!r} would be one file; refused")


def _read(folder: Path) -> tuple[tuple[str, str] | None, dict[str, tuple]]:
    """Return repository and commit of a folder that was begun, and what is known of its files."""
    record = folder / RECORD
    if not record.is_file():
        return None, {}
    if record.stat().st_size > MAX_RECORD_BYTES:
        raise UnsafeInputError(f"{record}: over {MAX_RECORD_BYTES:,} bytes")
    lines = [line for line in record.read_bytes().split(b"\n") if line.strip()]
    try:
        first = json.loads(lines[0])
        known = {}
        for line in lines[1:]:
            one = json.loads(line)
            known[one["file"]] = (one["size"], one["digest"], one["changed"])
        return (str(first["repository"]), str(first["commit"])), known
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise DataError(
            f"{record}: damaged; remove it, and the files here are verified anew"
        ) from None
