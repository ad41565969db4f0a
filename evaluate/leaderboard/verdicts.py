"""Judge all submissions of a store, and remember what was found so that it is found once.

A check replays every line of every result, and a thousand of them take their time. What came of
it depends on nothing but the submission's bytes, the pool, and the rules; so an accepted
submission's row is kept under the digest of all three. The record names every file by its SHA-256,
so its own digest is that of the whole; files are compared with the record again every time.

What is remembered lies in the user's cache, outside the store: whoever may write to a store, be it
by a pull request, cannot put a verdict there. Refusals are never remembered.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...durable import append_line, digest, write_text
from ...errors import DatacompError
from ...pools.parallel import map_threads
from ...pools.processes import map_ordered
from ...pools.uids import UidArray, digest_of_uids
from ...user_cache import user_cache
from ..results import Estimate
from .check import Refusal, Report, check, files_hold
from .record import Record, read_record
from .standings import Row, Score, row_of
from .store import place_of, places

MAX_LINE_BYTES = 1 << 20
MAX_CACHE_BYTES = 4 << 30
_FEW = 50
"""Submissions that are checked sooner than further processes have started."""


class Verdicts:
    """What is known of a store's submissions; ``pools`` are the sorted uids of scales' pools."""

    def __init__(self, store: Path | str, pools: Mapping[str, UidArray] | None = None) -> None:
        self._store = Path(store)
        self._pools = dict(pools or {})
        self._pool_digests = {scale: digest_of_uids(uids) for scale, uids in self._pools.items()}
        self._file = _cache_file(self._store)

    def load(self, workers: int = 1) -> tuple[list[Row], dict[str, Report]]:
        """Judge every submission; return the rows of those that hold, and the others by place.

        ``workers`` processes do the checks; the outcome is the same for any number of them, and
        whether or not anything was remembered.
        """
        names = [place.relative_to(self._store).as_posix() for place in places(self._store)]
        known = self._read()
        recall: Callable[[str], tuple[str, Row] | None] = functools.partial(self._recall, known)
        recalled = dict(zip(names, map_threads(recall, names, workers), strict=True))
        todo = [(str(self._store), name) for name in names if recalled[name] is None]
        if self._pools:  # too large to be sent to other processes
            judged = [self.judge(name) for _, name in todo]
        else:
            judged = map_ordered(_judge, todo, workers if len(todo) > _FEW else 1)
        found = dict(zip((name for _, name in todo), judged, strict=True))
        rows: list[Row] = []
        refused: dict[str, Report] = {}
        lines: dict[str, str] = {}
        for name in names:
            before = recalled[name]
            if before is not None:
                key, row = before
                rows.append(row)
                lines[key] = known[key]
                continue
            one = found[name]
            if isinstance(one, Report):
                refused[name] = one
                continue
            key, row = self._key(one[0], one[1].scale), one[1]
            rows.append(row)
            lines[key] = _line(key, row)
        if lines != known:
            self._write(lines)
        return rows, refused

    def judge(self, name: str) -> tuple[str, Row] | Report:
        """Check the submission at a place of the store; return its record's digest and its row."""
        return _judge((str(self._store), name), self._pools)

    def keep(self, record_digest: str, row: Row) -> None:
        """Remember a submission that was checked against the pool of its scale, if there is one."""
        if self._file is not None:
            key = self._key(record_digest, row.scale)
            with contextlib.suppress(DatacompError):  # a cache that cannot be written is none
                append_line(self._file, _line(key, row))

    def _key(self, record_digest: str, scale: str) -> str:
        return digest([rules(), record_digest, self._pool_digests.get(scale)])

    def _recall(self, known: Mapping[str, str], name: str) -> tuple[str, Row] | None:
        """Return the row of a submission that was judged before and whose files are unchanged."""
        if not known:
            return None
        folder = self._store / name
        try:
            record, value = read_record(folder)
            key = self._key(digest(value), record.scale_name)
            line = known.get(key)
            if line is None or place_of(record) != name or not files_hold(folder, record):
                return None
            return key, _row(record, json.loads(line)["row"])
        except (DatacompError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None  # the check says what is wrong

    def _read(self) -> dict[str, str]:
        """Return the remembered lines by key; what is damaged or another user's is not there."""
        found: dict[str, str] = {}
        if self._file is None:
            return found
        with contextlib.suppress(OSError), self._file.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_size > MAX_CACHE_BYTES:
                return found
            while line := file.readline(MAX_LINE_BYTES):
                if line.endswith(b"\n") and line.startswith(b'{"key":"'):
                    found[line[8:72].decode("ascii", "replace")] = line[:-1].decode(
                        "utf-8", "replace"
                    )
        return found

    def _write(self, lines: Mapping[str, str]) -> None:
        if self._file is None:
            return
        text = "".join(f"{line}\n" for line in lines.values())
        with contextlib.suppress(DatacompError):
            write_text(self._file, text)


def _judge(
    task: tuple[str, str], pools: Mapping[str, UidArray] | None = None
) -> tuple[str, Row] | Report:
    """Return record's digest and row of the submission at a place, or why it has none."""
    store, name = task
    folder = Path(store) / name
    scale = name.partition("/")[0]
    report = check(folder, pool=(pools or {}).get(scale))
    if report.accepted and report.record is not None:
        right = place_of(report.record)
        if name == right:
            return report.digest, row_of(report)
        report.refused.append(Refusal("place", name, f"belongs at {right}"))
    return report


@functools.cache
def rules() -> str:
    """Return the digest of the rules: of everything a verdict or a row is computed by."""
    found = hashlib.sha256(f"{platform.python_version()} numpy {np.__version__}\n".encode())
    root = Path(__file__).parents[2]
    for folder in ("evaluate", "pools"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".json"):
                found.update(f"{path.relative_to(root)}\n".encode())
                found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _cache_file(store: Path) -> Path | None:
    """Return where a store's verdicts are remembered; None where there is no home for them."""
    try:
        folder = user_cache() / "verdicts"
        store = store.resolve()
        if folder.resolve().is_relative_to(store):
            return None  # whoever writes to the store could write there
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
    except (OSError, RuntimeError):
        return None
    return folder / f"{hashlib.sha256(str(store).encode()).hexdigest()[:32]}.jsonl"


def _line(key: str, row: Row) -> str:
    """Write what is remembered of a row: all that its record does not say."""
    value = {
        "averages": dict(row.averages),
        "estimate": asdict(row.estimate),
        "tasks": {key: [s.value, s.standard_error, s.interval] for key, s in row.tasks.items()},
        "replicates": None if row.replicates is None
        else base64.b64encode(row.replicates.astype("<f8").tobytes()).decode(),
        "passed": list(row.passed),
        "not_replayed": dict(row.not_replayed),
    }  # fmt: skip
    # The order of averages and tasks is that of the pages, so keys are not sorted here.
    return f'{{"key":"{key}","row":{json.dumps(value)}}}'


def _row(record: Record, value: Mapping[str, Any]) -> Row:
    drawn = value["replicates"]
    replicates = None if drawn is None else np.frombuffer(base64.b64decode(drawn), "<f8")
    tasks = {
        key: Score(score, error, tuple(span) if span else None)
        for key, (score, error, span) in value["tasks"].items()
    }
    return Row(
        record.id, record.method, record.author, record.track, record.scale_name,
        record.dataset_size, value["averages"], Estimate(**value["estimate"]), tasks, replicates,
        record, passed=value["passed"], not_replayed=value["not_replayed"],
    )  # fmt: skip
