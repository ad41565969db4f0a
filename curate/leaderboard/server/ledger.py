"""What the server keeps in DuckDB: an index of what is shown, a log of what was tried."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....errors import StorageError
from ....evaluate.leaderboard.standings import Place, Row
from .private import private_folder

FILE = "ledger.duckdb"

_LAYOUT = """
CREATE TABLE IF NOT EXISTS audit (time TIMESTAMP, token VARCHAR, remote VARCHAR,
    outcome VARCHAR, status INTEGER, id VARCHAR, bytes BIGINT, detail VARCHAR);
CREATE OR REPLACE TABLE submissions (id VARCHAR PRIMARY KEY, scale VARCHAR, track VARCHAR,
    method VARCHAR, author VARCHAR, average DOUBLE, rank INTEGER, ties INTEGER, size BIGINT,
    seeds INTEGER, created VARCHAR);
"""
_COLUMNS = ("id", "scale", "track", "method", "author", "average", "rank", "ties", "size", "seeds",
            "created")  # fmt: skip
MAX_DETAIL = 500


class Ledger:
    """One DuckDB file in the store's private folder; the truth about submissions is the store."""

    def __init__(self, store: Path) -> None:
        import duckdb

        path = private_folder(store) / FILE
        try:
            self._connection = duckdb.connect(
                path, config={"threads": 1, "memory_limit": "512MB",
                              "autoinstall_known_extensions": False},
            )  # fmt: skip
        except duckdb.IOException as error:
            raise StorageError(
                f"{path}: cannot be opened; another server may hold it "
                f"({str(error).splitlines()[0][:160]})"
            ) from None
        self._lock = threading.Lock()
        self._connection.execute(_LAYOUT)

    def note(
        self, outcome: str, status: int, *, token: str | None = None, remote: str = "",
        id: str | None = None, size: int = 0, detail: str = "",
    ) -> None:  # fmt: skip
        """Add a line to the audit log; it is on disk when this returns."""
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        with self._lock:
            self._connection.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [now, token, remote, outcome, status, id, size, detail[:MAX_DETAIL]],
            )

    def attempts(self, token: str, seconds: int) -> int:
        """Return how many submissions of a token were taken in the last ``seconds``."""
        since = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(
            seconds=seconds
        )
        with self._lock:
            row = self._connection.execute(
                "SELECT count(*) FROM audit WHERE token = ? AND time > ? "
                "AND outcome <> 'rate limited'",
                [token, since],
            ).fetchone()
        return int(row[0]) if row else 0

    def show(self, rows: Sequence[tuple[Row, Place]]) -> None:
        """Replace the index by the verified rows that are shown now."""
        values = [
            [row.id, row.scale, row.track, row.method, row.author, row.average, place.rank,
             len(place.ties), row.size, len(row.record.runs) if row.record else 0,
             row.record.created if row.record else ""]
            for row, place in rows
        ]  # fmt: skip
        marks = ", ".join("?" * len(_COLUMNS))
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM submissions")
            if values:
                self._connection.executemany(f"INSERT INTO submissions VALUES ({marks})", values)
            self._connection.execute("COMMIT")

    def list(
        self, scale: str | None, track: str | None, limit: int, offset: int
    ) -> list[dict[str, Any]]:
        """Return submissions that are shown, the best of each scale first."""
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM submissions "
                "WHERE (? IS NULL OR scale = ?) AND (? IS NULL OR track = ?) "
                "ORDER BY scale, average DESC, id LIMIT ? OFFSET ?",
                [scale, scale, track, track, limit, offset],
            ).fetchall()
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the last lines of the audit log, the newest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT * FROM audit ORDER BY time DESC LIMIT ?", [limit]
            )
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
