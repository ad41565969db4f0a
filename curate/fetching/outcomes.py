"""What became of the URLs of a shard, as img2dataset's parquet file beside it tells."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ...pools import fetches
from .reasons import reason_of

if TYPE_CHECKING:
    import pyarrow as pa

STATS = "_stats.json"
"""What stands after the name of a shard whose file of stats it is; it is written last."""


def outcomes_of(out: Path, name: str) -> tuple[pa.Table, datetime]:
    """Return ``uid``, ``state`` and ``reason`` of each URL of a whole shard, and when (UTC)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(out / f"{name}.parquet", columns=["uid", "status", "error_message"])
    good = [status == "success" for status in table["status"].to_pylist()]
    messages = table["error_message"].to_pylist()
    states = [fetches.OK if fine else fetches.FAILED for fine in good]
    reasons = [
        None if fine else reason_of(message or "")
        for fine, message in zip(good, messages, strict=True)
    ]
    ended = datetime.fromtimestamp((out / f"{name}{STATS}").stat().st_mtime, UTC)
    found = pa.table(
        {"uid": table["uid"], "state": states, "reason": pa.array(reasons, pa.string())}
    )
    return found, ended.replace(tzinfo=None)
