"""The samples and shards that training sets aside: each listed once, with its reason.

A sample is seen many times, by several processes, and again after an interruption, but it is
broken once. So the list is a file that all of them append to, and what it says depends on the
data alone once the run has ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..durable import append_line, write_text
from ..errors import DataError

FILE = "set_aside.jsonl"
"""One JSON object a line (source, shard, sample, reason, detail), in the folder of the run."""
NAMED = 100
MAX_DETAIL = 300

Place = tuple[int, str, str]
"""Number of the source, shard, and key of the sample (empty for the shard itself)."""


@dataclass(frozen=True)
class SetAsideReport:
    """How many were set aside for each reason, and the first NAMED of them by name."""

    counts: dict[str, int]
    named: list[str]


class SetAsideLog:
    """The list of a run; every process that loads samples has one of these on the same file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[Place] = set()

    def begin(self, entries: Iterable[tuple[int, str, str, str]]) -> None:
        """Begin the list anew with (source, shard, sample, reason), written at once."""
        self._path.unlink(missing_ok=True)
        lines = [_line(*entry) for entry in entries]
        if lines:
            write_text(self._path, "".join(f"{line}\n" for line in lines))

    def refresh(self) -> None:
        """Learn what is listed by now, by this process or another."""
        self._known = {_place(entry) for entry in self._entries()}

    def add(self, source: int, shard: str, sample: str, reason: str, detail: str = "") -> None:
        """List a sample, or a shard (``sample`` empty), unless this process knows it is listed."""
        if (source, shard, sample) in self._known:
            return
        self._known.add((source, shard, sample))
        append_line(self._path, _line(source, shard, sample, reason, detail))

    def settle(self) -> SetAsideReport:
        """Sort the list, leave out what two processes listed both, and count it."""
        entries = {_place(entry): entry for entry in self._entries()}
        ordered = [entries[place] for place in sorted(entries)]
        if ordered:
            lines = (json.dumps(entry, sort_keys=True) + "\n" for entry in ordered)
            write_text(self._path, "".join(lines))
        counts = Counter(entry["reason"] for entry in ordered)
        return SetAsideReport(dict(sorted(counts.items())), [_named(e) for e in ordered[:NAMED]])

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # it is being written, or its writer was killed
                try:
                    yield json.loads(line)
                except ValueError:
                    raise DataError(f"{self._path}: damaged; train into another folder") from None


def _line(source: int, shard: str, sample: str, reason: str, detail: str = "") -> str:
    entry = {
        "source": source, "shard": shard, "sample": sample or None, "reason": reason,
        "detail": " ".join(detail.split())[:MAX_DETAIL],
    }  # fmt: skip
    return json.dumps(entry, sort_keys=True)


def _place(entry: dict[str, Any]) -> Place:
    return entry["source"], entry["shard"], entry["sample"] or ""


def _named(entry: dict[str, Any]) -> str:
    where = entry["shard"] if entry["sample"] is None else f"{entry['shard']}:{entry['sample']}"
    return f"{where}: {entry['reason']}" + (f" ({entry['detail']})" if entry["detail"] else "")
