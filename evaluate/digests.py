"""Digests of evaluation sets: recorded the first time, verified ever after.

``digests.jsonl`` lies beside the sets. A set that changes, be it by a download that was cut off
or by a publisher who mended it, gives other numbers under the same name: it is refused. Of sets
elsewhere the record is kept in the user's cache; one that lies beside them counts too.

``.seen.jsonl`` spares reading sets again to find that they were evaluated before: it holds names,
sizes and times of change of the files behind a digest. No score is ever computed on its word.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..durable import append_line, storage_errors
from ..errors import DatacompError, DataError, IntegrityError, UnsafeInputError
from ..pools.ranges import fetch, join
from ..user_cache import user_cache
from .tasks import HUB, Task, is_url

if TYPE_CHECKING:
    from .evalsets import EvalSet

FILE = "digests.jsonl"
SEEN = ".seen.jsonl"
MAX_BYTES = 16 << 20


def record_folder(data: Path | str) -> Path:
    """Return the folder that holds the record of the sets in ``data``; it may not be there yet."""
    if not is_url(data):
        return Path(data)
    name = hashlib.sha256(str(data).rstrip("/").encode()).hexdigest()[:32]
    return user_cache() / "evalsets" / name


def verify(data: Path | str, task: Task, digest: str) -> bool:
    """Tell whether the digest of a task's set is recorded for ``data``.

    Raises IntegrityError when another digest is.
    """
    place = record_folder(data) / FILE
    known = recorded(data).get((task.key, task.version))
    if known is None:
        place, known = join(str(data), FILE), _published(data).get((task.key, task.version))
        if known == digest:
            return False  # as its publisher says, but not recorded here yet
    if known is not None and known != digest:
        raise IntegrityError(
            f"{task.key}: the evaluation set is not what {place} recorded "
            f"({known[:12]}, now {digest[:12]}); fetch it again, or take its line out of that "
            "file if the change is meant"
        )
    return known is not None


def record(data: Path | str, task: Task, digest: str) -> None:
    """Record the digest of a task's set; one that is recorded already stays.

    Several processes may do so at once: the folder is locked, so that each set has one line.
    """
    line = {"key": task.key, "version": task.version, "sha256": digest}
    place = record_folder(data)
    with storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        folder = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if (task.key, task.version) not in recorded(data):
            append_line(place / FILE, json.dumps(line))
    finally:
        os.close(folder)


def recorded(data: Path | str) -> dict[tuple[str, int], str]:
    """Return the digests recorded for ``data`` by task and version; the first line counts."""
    file = record_folder(data) / FILE
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_BYTES:,} bytes")
    return _parse(file.read_bytes(), str(file))


def seen(data: Path | str, evalset: EvalSet) -> str | None:
    """Return the digest of a set whose files look as they did when it was taken, else None."""
    file = record_folder(data) / SEEN
    if not file.is_file() or file.stat().st_size > MAX_BYTES:
        return None
    mark = None
    for line in reversed(file.read_bytes().splitlines()):
        try:
            key, stamps, sha256 = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue  # the torn line of a killed writer
        if key == evalset.task.key:
            mark = mark or evalset.stamps()
            if stamps == mark and isinstance(sha256, str):
                return sha256
    return None


def remember(data: Path | str, evalset: EvalSet, digest: str) -> None:
    """Keep how the files of a set look; where that cannot be told or written, nothing is kept."""
    try:
        line = json.dumps([evalset.task.key, evalset.stamps(), digest])
        append_line(record_folder(data) / SEEN, line)
    except (DatacompError, OSError):
        return


def _published(data: Path | str) -> dict[tuple[str, int], str]:
    """Return the digests that lie beside sets on a web server or in a store."""
    if not is_url(data) or data == HUB:
        return {}
    place = join(str(data), FILE)
    found = fetch(place, MAX_BYTES)
    return {} if found is None else _parse(found, place)


def _parse(data: bytes, where: str) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            found.setdefault((str(entry["key"]), int(entry["version"])), str(entry["sha256"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{where}: line {number}: not a digest; the file is damaged") from None
    return found
