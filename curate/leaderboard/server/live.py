"""The pages of a store that grows: verified rows in memory, pages drawn when they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ....evaluate.leaderboard.check import Report
from ....evaluate.leaderboard.layout import RECORD
from ....evaluate.leaderboard.standings import Row, row_of
from ....evaluate.leaderboard.store import place_of, places
from ....evaluate.leaderboard.verdicts import Verdicts
from ....pools.parallel import default_workers
from ....pools.uids import UidArray
from ..site import boards_of, pages_of
from .ledger import Ledger

_LOOK_EVERY = 1.0
"""Seconds after which the store is looked at again: others may write to it too."""


class Live:
    """What is shown now. Nothing is shown that was not checked by these rules.

    Whatever way a submission came, it is held against the pool of its scale where ``pools`` has it.
    """

    def __init__(
        self, store: Path, title: str, ledger: Ledger, pools: Mapping[str, UidArray] | None = None
    ) -> None:
        self._store, self._title, self._ledger = store, title, ledger
        self._lock = threading.Lock()
        self._verdicts = Verdicts(store, pools)
        rows, self.refused = self._verdicts.load(default_workers())
        self._rows = {row.id: row for row in rows}
        self._known = {self._name(row) for row in rows} | self.refused.keys()
        self._pages: dict[str, Callable[[], str]] = {}
        self._drawn: dict[str, str] = {}
        self._looked = time.monotonic()
        self._stale = True

    def page(self, name: str) -> str | None:
        """Return the text of a page, None for one that is not there."""
        with self._lock:
            self._look()
            if self._stale:
                boards = boards_of(list(self._rows.values()))
                self._pages, self._drawn = pages_of(boards, self._title), {}
                self._ledger.show([
                    pair for board in boards
                    for pair in zip(board.rows, board.places, strict=True)
                    if not pair[0].is_reference
                ])  # fmt: skip
                self._stale = False
            if name not in self._drawn and name in self._pages:
                self._drawn[name] = self._pages[name]()
            return self._drawn.get(name)

    def add(self, report: Report) -> None:
        """Show a submission that was checked and published."""
        row = row_of(report)
        self._verdicts.keep(report.digest, row)
        with self._lock:
            self._rows[row.id] = row
            self._known.add(self._name(row))
            self._stale = True

    def row(self, id: str) -> Row | None:
        """Return a row that is shown."""
        with self._lock:
            self._look()
            return self._rows.get(id)

    def file(self, id: str, name: str) -> Path | None:
        """Return where a file of a submission lies: only what its record lists is given out."""
        row = self.row(id)
        if row is None or row.record is None:
            return None
        if name != RECORD and name not in {file.path for file in row.record.files}:
            return None
        return self._store / place_of(row.record) / name

    def _name(self, row: Row) -> str:
        assert row.record is not None
        return place_of(row.record)

    def _look(self) -> None:
        """Take in what others have put into the store."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for place in places(self._store):
            name = place.relative_to(self._store).as_posix()
            if name in self._known:
                continue
            self._known.add(name)
            found = self._verdicts.judge(name)
            if isinstance(found, Report):
                self.refused[name] = found
                continue
            record_digest, row = found
            self._verdicts.keep(record_digest, row)
            self._rows[row.id] = row
            self._stale = True
