"""Durable files: nothing half-written is ever visible under its final name.

Every writer here writes under a hidden name in the same folder, flushes to the disk and
renames. A crash leaves at most a ``.NAME.partial``, which the next run overwrites.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import DataError, MissingError, StorageError, UnsafeInputError

_STORAGE_ERRNOS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "no permission to write there; choose another place",
    errno.EPERM: "no permission to write there; choose another place",
    errno.EISDIR: "a folder stands where a file should be written",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.ENOTEMPTY: "a folder that is not empty stands there; remove it or choose another place",
    errno.EFBIG: "the file would exceed the largest size allowed here",
}


@contextlib.contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's storage failures into one clear StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE_ERRNOS:
            raise StorageError(f"cannot write {path}: {_STORAGE_ERRNOS[error.errno]}") from error
        raise


ATTEMPT = r"[0-9a-f]{8}-\d+"
"""What workers of a cluster name their attempts: machine and process."""


class _Settings:
    attempt = ""


def name_attempt(name: str) -> None:
    """Let what this process prepares have names of its own from now on.

    For a worker whose partition another one may be working on too, having taken it for dead.
    """
    _Settings.attempt = f".{name}"


def partial_path(path: Path) -> Path:
    """Return the hidden name under which ``path`` is prepared."""
    return path.with_name(f".{path.name}{_Settings.attempt}.partial")


def sweep_attempts(folder: Path, name: str = "") -> None:
    """Remove what workers of a cluster that died left half-written in a folder.

    With a ``name`` only what was to be the file of that name. Call it before work on the folder
    begins, when nobody can be at it.
    """
    wanted = re.compile(rf"\.{re.escape(name) if name else '.+'}\.{ATTEMPT}\.partial")
    with contextlib.suppress(OSError):
        for left in folder.iterdir():
            if wanted.fullmatch(left.name):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def fsync_directory(path: Path) -> None:
    """Make a rename inside ``path`` survive a power cut."""
    sync(path)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk; it need not be writable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path | str, otherwise: str) -> Iterator[None]:
    """Hold a folder, which is made if need be, for this process alone.

    Where another process holds it, nothing is waited for: StorageError says ``otherwise``. The
    system lets go of it when the process ends, however it ends.
    """
    folder = Path(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(otherwise) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(path: Path | str) -> Iterator[None]:
    """Let one process after the other do something, each waiting for those before it.

    ``path`` is an empty file that stands for it, and stays. The system lets the next one go on
    when a process ends, however it ends. Raises StorageError where files cannot be locked.
    """
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # To be written: NFS locks nothing that is only read.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StorageError(
                f"cannot lock {path} ({error.strerror}); choose a file system with locks"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a partial path; on success it is synced and renamed to ``path``, else removed."""
    path = Path(path)
    partial = partial_path(path)
    with storage_errors(path):
        with _place_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            fsync_directory(path.parent)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError) and error.filename == str(partial):
                with _place_for(path):
                    raise
            raise


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty partial folder; on success it is renamed to ``path``, else removed."""
    path = Path(path)
    partial = partial_path(path)
    with storage_errors(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for inside in (partial, *partial.rglob("*")):
                if inside.is_dir() or inside.is_file():
                    sync(inside)
            partial.rename(path)
            fsync_directory(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as partial, _place_for(path):
        partial.write_bytes(data)


@contextlib.contextmanager
def _place_for(path: Path | str) -> Iterator[None]:
    """Say of a place where nothing can be made, as below /proc, that it is none."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"cannot write {path}: no file can be made there; choose another place"
        ) from error


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys to ``path`` atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str, limit: int) -> Any:
    """Read a stranger's JSON of at most ``limit`` bytes.

    Raises MissingError where there is no file, UnsafeInputError for a larger one, DataError for
    what is no JSON.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise UnsafeInputError(f"{path}: larger than {limit:,} bytes; refused")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def append_line(path: Path | str, line: str) -> None:
    """Append one line so that it is there whole or not at all, even on a full disk.

    A torn line left by a killed writer (no newline at the end) is cut off first. Several
    processes may append to one file. Raises ValueError for a text of more than one line.
    """
    if "\n" in line:
        raise ValueError("a line cannot hold a line break")
    path = Path(path)
    data = line.encode() + b"\n"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a buffer would be flushed again on close, after the line was cut off.
        with path.open("ab+", buffering=0) as file:
            # Without the lock, another writer's line might be taken for a torn one.
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _whole_lines_end(file)
            file.truncate(end)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if end == 0:
            fsync_directory(path.parent)


def _whole_lines_end(file: Any) -> int:
    """Return the offset just after the last newline."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        block = file.read(position - start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def canonical_json(value: Any) -> bytes:
    """Return the one JSON encoding of ``value``: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value`` in lower-case hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes in lower-case hex, reading it once."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_unchanged(path: Path | str) -> str:
    """Return the SHA-256 of a file; one that this process has read and nobody has changed since
    is not read again.
    """
    state = Path(path).stat()
    return _sha256_of(str(path), state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(256)
def _sha256_of(path: str, *_: int) -> str:
    return sha256_file(path)
