"""Whose folder it is: one fetch at a time, of one pool, with settings that stay."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...durable import read_json, storage_errors, write_json
from ...errors import DataError, StorageError, UsageError
from ...pools.fetches import FOLDER_KEY
from ...pools.pool import Pool
from .adopting import adopt, is_img2datasets
from .job import FetchOptions

STATE = "fetch.json"
FORMAT, VERSION = "datacomp-fetch", 1
METADATA = "metadata"
"""What stands for the pool's name where a folder of metadata is fetched."""
_LOCK = ".lock"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for one fetch at a time; make it if need be."""
    made = not out.exists()
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        new = not (out / _LOCK).exists()
        descriptor = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            new = False
            raise StorageError(
                f"{out}: process {holder or '?'} is fetching there; wait for it or stop it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        if new and not (out / STATE).exists():  # a folder that it was not allowed to take
            (out / _LOCK).unlink(missing_ok=True)
            if made and not os.listdir(out):
                out.rmdir()
        os.close(descriptor)


def bind(pool: Pool, out: Path, options: FetchOptions) -> None:
    """Make sure that this folder is where this pool is fetched to, with these settings."""
    before = pool.scalar("SELECT value FROM pool WHERE key = ?", [FOLDER_KEY])
    state = out / STATE
    found = _state(out)
    if found is None:
        theirs = is_img2datasets(out)
        if theirs and not options.adopt:
            raise UsageError(
                f"{out}: holds what img2dataset itself fetched; --adopt takes that over, if it "
                "was made with the same size, quality and blurring"
            )
        if not theirs:
            _expect_empty(out)
    else:
        theirs = before is None or found.get("pool") != _name(pool)
        if theirs and not options.adopt:
            raise UsageError(
                f"{out}: holds the images of another pool; choose another folder, or, if that pool "
                "is lost, take them over with --adopt"
            )
        _expect_settings(out, found, options)
    if theirs or not state.exists():
        at = pool.path.parent / before if before is not None else out
        if (at / STATE).exists() and at.resolve() != out.resolve():
            raise UsageError(f"{pool.path}: its images are in {at} already; fetch there")
    if theirs:
        adopt(pool, out)
    place = os.path.relpath(out.resolve(), pool.path.parent.resolve())
    if before != place:
        with pool.transaction():
            if _name(pool) is None:
                pool.sql(
                    "INSERT INTO pool SELECT 'fetch_name', "
                    "printf('%032x-%d', coalesce(bit_xor(uid), 0), count(*)) FROM samples"
                )
            pool.sql("DELETE FROM pool WHERE key = ?", [FOLDER_KEY])
            pool.sql("INSERT INTO pool VALUES (?, ?)", [FOLDER_KEY, place])
    if theirs or not state.exists():
        _write_state(out, options, _name(pool))


def bind_metadata(out: Path, options: FetchOptions) -> None:
    """Make sure that a folder of metadata can be fetched there, with these settings."""
    if options.adopt:
        raise UsageError(
            f"{out}: only a pool can take over (--adopt); make one that links to the metadata: "
            "datacomp pool add pool.duckdb METADATA --kind commonpool --link"
        )
    found = _state(out)
    if found is None:
        _expect_empty(out)
        _write_state(out, options, METADATA)
        return
    if found.get("pool") != METADATA:
        raise UsageError(
            f"{out}: holds the images of a pool; go on with that pool, or choose another folder"
        )
    _expect_settings(out, found, options)


def _state(out: Path) -> dict[str, Any] | None:
    """Return what a folder says of itself, None where nothing has been fetched there."""
    state = out / STATE
    if not state.exists():
        return None
    found = read_json(state, 1 << 20)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{state}: damaged; choose another folder")
    return found


def _write_state(out: Path, options: FetchOptions, pool: str | None) -> None:
    identity = {"format": FORMAT, "version": VERSION, "settings": options.lasting()}
    write_json(out / STATE, {**identity, "pool": pool})


def _expect_empty(out: Path) -> None:
    others = sorted(name for name in os.listdir(out) if not name.startswith("."))
    if others:
        raise UsageError(
            f"{out}: is not empty ({others[0]}) and was not made by 'datacomp pool fetch'; "
            "choose another folder"
        )


def _expect_settings(out: Path, found: dict[str, Any], options: FetchOptions) -> None:
    for name, value in options.lasting().items():
        kept = (found.get("settings") or {}).get(name)
        if kept != value:
            raise UsageError(
                f"{out}: was fetched with {name} {kept}, not {value}; keep it, or choose "
                "another folder and another pool"
            )


def _name(pool: Pool) -> str | None:
    """Return what names the pool to its folder: its uids when it was first fetched."""
    return pool.scalar("SELECT value FROM pool WHERE key = 'fetch_name'")
