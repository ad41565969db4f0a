"""What a submission's folder may hold, how large it may be, and how it travels as one tar.

Names follow a fixed pattern, so no name can leave the folder; nothing is compressed on the way,
so nothing can grow when it is unpacked.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...durable import storage_errors
from ...errors import DataError, MissingError, UnsafeInputError
from ...pools.tar import END, Member, padded, scan, ustar_header

RECORD = "submission.json"
"""The record of a submission: who, what, how, and which files belong to it."""
RESULTS = "results"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"

MAX_RECORD_BYTES = 1 << 20
MAX_RESULTS_BYTES = 16 << 20
MAX_SAMPLES_BYTES = 256 << 30
"""xlarge's subset of 3.8 billion uids has 61 GB."""
MAX_CHECKPOINT_BYTES = 64 << 30
MAX_FILES = 64
_BLOCK = 1 << 20

_STEM = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
_LIMITS = (
    (re.compile(RECORD.replace(".", r"\.")), MAX_RECORD_BYTES),
    (re.compile(rf"{RESULTS}/[0-9]{{1,2}}\.jsonl"), MAX_RESULTS_BYTES),
    (re.compile(rf"{SAMPLES}/{_STEM}\.(npy|parquet)"), MAX_SAMPLES_BYTES),
    (re.compile(rf"{CHECKPOINTS}/[0-9]{{1,2}}\.(pt|safetensors)"), MAX_CHECKPOINT_BYTES),
)


def limit_of(name: str) -> int | None:
    """Return how many bytes a file of this name may have, None for a name that has no place."""
    return next((limit for pattern, limit in _LIMITS if pattern.fullmatch(name)), None)


def stem_of(name: str) -> str:
    """Return a file's stem in the letters that the layout allows.

    >>> stem_of("my subset (v2).npy")
    'my-subset-v2'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", Path(name).stem).strip("-_")[:100] or "subset"


def list_files(folder: Path) -> dict[str, int]:
    """Return the files of a submission's folder with their sizes, by name.

    Raises MissingError without the folder, UnsafeInputError for links, devices, names that have
    no place in a submission, and files over their limit.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise MissingError(f"{folder}: no such submission")
    found: dict[str, int] = {}
    for name, status in _entries(folder, ""):
        limit = limit_of(name)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeInputError(f"{folder}: {name[:120]!r} is no regular file; refused")
        _check_size(str(folder), name, status.st_size, limit)
        found[name] = status.st_size
        if len(found) > MAX_FILES:
            raise UnsafeInputError(f"{folder}: more than {MAX_FILES} files; refused")
    return found


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if not prefix and stat.S_ISDIR(status.st_mode) and entry.name in (
                RESULTS, SAMPLES, CHECKPOINTS,
            ):  # fmt: skip
                yield from _entries(Path(entry.path), f"{name}/")
            else:
                yield name, status


def _check_size(where: str, name: str, size: int, limit: int | None) -> None:
    if limit is None:
        raise UnsafeInputError(f"{where}: {name[:120]!r} has no place in a submission; refused")
    if size > limit:
        raise UnsafeInputError(f"{where}: {name} has {size:,} bytes, at most {limit:,}; refused")


def pack(folder: Path, archive: Path) -> None:
    """Write a submission's folder as one plain tar, its record first."""
    found = list_files(folder)
    with storage_errors(archive), archive.open("wb") as out:
        for name in sorted(found, key=lambda name: (name != RECORD, name)):
            size = found[name]
            out.write(ustar_header(name, size))
            with (folder / name).open("rb") as file:
                _copy(file, out, size)
            out.write(b"\0" * (padded(size) - size))
        out.write(END)


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Unpack a submission's tar into an empty ``folder``.

    Names are checked against the layout before anything is written, and all files together may
    have at most ``limit`` bytes. Raises DataError for what is no plain tar, UnsafeInputError for
    a name without a place, a file that stands there twice, or too much of anything.
    """
    seen: set[str] = set()
    total = 0
    with archive.open("rb") as file, storage_errors(folder):
        for member in _members(archive):
            if member.name in seen:
                raise UnsafeInputError(
                    f"{archive}: {member.name[:120]!r} stands there twice; refused"
                )
            _check_size(str(archive), member.name, member.size, limit_of(member.name))
            seen.add(member.name)
            total += member.size
            if len(seen) > MAX_FILES or total > limit:
                raise UnsafeInputError(
                    f"{archive}: more than {MAX_FILES} files or {limit:,} bytes; refused"
                )
            target = folder / member.name
            target.parent.mkdir(exist_ok=True)
            file.seek(member.data)
            with target.open("xb") as out:
                _copy(file, out, member.size)
    if RECORD not in seen:
        raise DataError(f"{archive}: holds no {RECORD}; not a submission")


def _members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" or start[:2] == b"\x1f\x8b" or start in (b"\xfd7zX", b"(\xb5/\xfd"):
        raise UnsafeInputError(
            f"{archive}: a compressed archive may grow without bounds; send a plain tar"
        )
    yield from scan(archive)


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    left = size
    while left:
        block = source.read(min(left, _BLOCK))
        if not block:
            raise DataError("a file of the submission ended too early; it changed meanwhile")
        out.write(block)
        left -= len(block)
