"""Connections to pool files: how much memory they take, what they may reach, clear errors.

What does not fit into memory goes to a folder ``POOL.tmp`` beside the pool. DuckDB empties it;
what a killed process left there is removed when the pool is next opened for writing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..errors import DataError, HeldError, MissingError, StorageError, UsageError
from ..progress import warn
from . import schema
from .interrupts import interruptible, watch
from .parallel import MEMORY_VARIABLE

MEMORY = "50%"
"""Share of the machine's memory that a connection may take, if nothing else is said."""

_LOOK_AGAIN = 0.2
"""Seconds until a pool that another process holds is tried again."""

BESIDE = "_beside"
"""Name of the database that is attached to another one."""

_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": False,  # nothing is fetched over the network
    "python_enable_replacements": False,  # an unknown table is never a Python variable
}

_MEMORY_SIZE = re.compile(r"(?=.*[1-9])\d+(\.\d+)? ?([KMGT]i?B|%)")
_DISK_FULL = re.compile(
    r"No space left|[Cc]ould not write|File too large|Disk quota|Out of (disk|storage)"
)


def connect(
    path: Path | None,
    read_only: bool = False,
    *,
    confined: bool = False,
    reaching: Sequence[Path] = (),
    memory_limit: str | None = None,
    threads: int | None = None,
    beside: Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file, or a database in memory for None.

    Another DuckDB file, ``beside``, can be read there as ``BESIDE``.

    A ``confined`` connection reaches no network and no other file but those it is ``reaching``
    for. ``memory_limit`` is a size such as ``2GB`` or a share such as ``25%``; None takes the
    environment's DATACOMP_MEMORY, or else half of the machine's memory. ``threads`` None takes
    every core.
    """
    config = {**_CONFIG, "memory_limit": _memory(memory_limit)}
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads is {threads}, expected at least 1")
        config["threads"] = threads
    if confined and (reaching or beside is not None):
        # What it reaches can be set on the connection only, which must not be an open one's.
        config["custom_user_agent"] = "confined"
    elif confined:
        config["enable_external_access"] = False
    if path is None:
        overflow = f"datacomp-{os.getpid()}-{secrets.token_hex(4)}"
        config["temp_directory"] = str(Path(tempfile.gettempdir()) / overflow)
    # An absolute path: DuckDB takes names such as "md:x" for services.
    name = ":memory:" if path is None else str(path.absolute())
    connection = duckdb.connect(name, read_only=read_only, config=config)
    watch(connection)
    with contextlib.suppress(duckdb.InvalidInputException):  # locked by another one of ours
        # Its own progress bar goes to standard output where it takes us for interactive.
        connection.execute("SET enable_progress_bar = false")
        # Every statement on a linked folder asks for the footers of its files.
        connection.execute("SET parquet_metadata_cache = true")
        if beside is not None:
            try:
                attach(connection, beside, BESIDE)
            except duckdb.Error:
                connection.close()
                raise
        if confined:
            if reaching or beside is not None:
                connection.execute("SET allowed_paths = $1", [[str(file) for file in reaching]])
                connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
    return connection


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Let a connection read another DuckDB file under a name."""
    file = str(path.absolute()).replace("'", "''")
    connection.execute(f"ATTACH IF NOT EXISTS '{file}' AS {name} (READ_ONLY)")


def _memory(given: str | None) -> str:
    named = given is not None
    chosen = given if named else os.environ.get(MEMORY_VARIABLE) or MEMORY
    if not _MEMORY_SIZE.fullmatch(chosen):
        what = "the memory limit" if named else MEMORY_VARIABLE
        raise UsageError(
            f"{what} is {chosen!r}, expected a size such as 2GB or a share such as 25%"
        )
    return chosen


def open_file(
    path: Path,
    read_only: bool = False,
    *,
    confined: bool = False,
    reaching: Sequence[Path] = (),
    memory_limit: str | None = None,
    threads: int | None = None,
    beside: Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open the pool at ``path`` as ``connect`` does; an older one is brought up to date first."""
    if not path.is_file():
        raise MissingError(
            f"{path}: no such pool, and no folder of metadata; make a pool with "
            f"'datacomp pool create {path}'"
        )

    def opened(read_only: bool) -> duckdb.DuckDBPyConnection:
        return connect(path, read_only, confined=confined, reaching=reaching,
                       memory_limit=memory_limit, threads=threads, beside=beside)  # fmt: skip

    _expect_duckdb(path)
    connection = _when_free(path, lambda: opened(read_only))
    with pool_errors(path):
        try:
            if not read_only:
                _sweep(path)
                schema.migrate(connection, str(path))
            elif schema.is_older(connection, str(path)):
                connection.close()
                open_file(path, memory_limit=memory_limit, threads=threads).close()
                connection = opened(True)
        except BaseException:
            connection.close()
            raise
    return connection


class _Patience:
    seconds = 0.0


@contextlib.contextmanager
def patience(seconds: float = 60.0) -> Iterator[None]:
    """Let this process wait meanwhile, so long at most, for pools that others hold.

    For long work, which a short look at its pool must not end.
    """
    before = _Patience.seconds
    _Patience.seconds = seconds
    try:
        yield
    finally:
        _Patience.seconds = before


def _when_free(
    path: Path, opening: Callable[[], duckdb.DuckDBPyConnection]
) -> duckdb.DuckDBPyConnection:
    """Open a pool as soon as no other process holds it, or raise HeldError."""
    patient, told = _Patience.seconds, False
    until = time.monotonic() + patient
    while True:
        try:
            with pool_errors(path):
                return opening()
        except HeldError as error:
            if time.monotonic() >= until:
                raise
            if not told:
                warn(f"{error}; waiting for it, {patient:g} s at most")
                told = True
            time.sleep(_LOOK_AGAIN)


def _expect_duckdb(path: Path) -> None:
    """Raise DataError for another kind of file: DuckDB opens tables too, as databases of views."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return  # DuckDB says why
    if start[8:] != b"DUCK":
        raise DataError(
            f"{path}: not a datacomp pool (no DuckDB file); if it holds samples, add it to one: "
            f"datacomp pool add POOL {path}"
        )


def _sweep(path: Path) -> None:
    """Remove what a killed process could not take out of memory's overflow.

    Whoever holds the pool for writing holds it alone, but for other connections of this process.
    """
    folder = path.with_name(path.name + ".tmp")
    if not any(folder.glob(f"duckdb_temp_{os.getpid()}_*")):
        for stale in folder.glob("duckdb_temp_*"):
            stale.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or something else lies in it
            folder.rmdir()


@contextlib.contextmanager
def pool_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's failures about a pool file into one clear line."""
    try:
        with interruptible():
            yield
    except duckdb.Error as error:
        text = one_line(error)
        holder = re.search(r"PID (\d+)", text)
        if "Could not set lock" in text:
            who = f"process {holder[1]}" if holder else "another process"
            raise HeldError(f"{path}: held by {who}; wait for it or stop it") from error
        if "different configuration" in text:
            raise StorageError(f"{path}: this process holds it open already") from error
        if "not a valid DuckDB database" in text:
            raise DataError(f"{path}: not a datacomp pool (no DuckDB file)") from error
        if _DISK_FULL.search(text):
            raise StorageError(
                f"{path}: the disk is full; free some space and run the same command again"
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise StorageError(
                f"{path}: more memory is needed than allowed; allow more with --memory or "
                f"{MEMORY_VARIABLE}, or free some disk space beside the pool"
            ) from error
        if "is not valid UTF8" in text and "Parquet" in text:
            text += " Such samples are set aside if you add the folder without linking it."
        raise DataError(f"{path}: {text}") from error


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks."""
    return re.sub(r"\s+", " ", str(error)).strip()
