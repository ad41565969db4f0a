"""Digests of evaluation sets: recorded the first time, verified ever after.

``digests.jsonl`` lies beside the sets. A set that changes, be it by a download that was cut off
or by a publisher who mended it, gives other numbers under the same name: it is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from ..durable import append_line
from ..errors import DataError, IntegrityError, UnsafeInputError
from .tasks import Task

FILE = "digests.jsonl"
MAX_BYTES = 16 << 20


def verify(data: Path, task: Task, digest: str) -> bool:
    """Tell whether the digest of a task's set is recorded in ``data``.

    Raises IntegrityError when another digest is.
    """
    known = recorded(data).get((task.key, task.version))
    if known is not None and known != digest:
        raise IntegrityError(
            f"{task.key}: the evaluation set is not what {data / FILE} recorded "
            f"({known[:12]}, now {digest[:12]}); fetch it again, or take its line out of that "
            "file if the change is meant"
        )
    return known is not None


def record(data: Path, task: Task, digest: str) -> None:
    """Record the digest of a task's set; one that is recorded already stays.

    Several processes may do so at once: the folder is locked, so that each set has one line.
    """
    line = {"key": task.key, "version": task.version, "sha256": digest}
    folder = os.open(data, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if (task.key, task.version) not in recorded(data):
            append_line(data / FILE, json.dumps(line))
    finally:
        os.close(folder)


def recorded(data: Path) -> dict[tuple[str, int], str]:
    """Return the digests recorded in ``data`` by task and version; the first line counts."""
    file = data / FILE
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_BYTES:,} bytes")
    found: dict[tuple[str, int], str] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            found.setdefault((str(entry["key"]), int(entry["version"])), str(entry["sha256"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{file}: line {number}: not a digest; the file is damaged") from None
    return found
