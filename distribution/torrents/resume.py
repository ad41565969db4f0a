"""What a seed remembers of each torrent: how much it gave, and to whom it talked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ...durable import write_bytes
from ...errors import DatacompError

FOLDER = ".state/seed"
MAX_BYTES = 1 << 26


def keep(releases: Path, params: Any, uploaded: int) -> None:
    """Write down what libtorrent hands out to be kept, with the bytes given in all.

    Where that is not possible, nothing is lost but counts and addresses.
    """
    import libtorrent as lt

    # The hash trees stand in the torrent file; they would only be written once more.
    params.ti, params.merkle_tree = None, []
    params.total_uploaded = uploaded
    with contextlib.suppress(DatacompError):
        path = releases / FOLDER / str(params.info_hashes.v1)
        write_bytes(path, lt.write_resume_data_buf(params))


def restore(releases: Path, params: Any, infohash: str) -> int:
    """Take up the counts and peers of an earlier run; return the bytes given so far."""
    import libtorrent as lt

    path = releases / FOLDER / infohash
    try:
        if path.stat().st_size > MAX_BYTES:
            return 0
        before = lt.read_resume_data(path.read_bytes())
    except (OSError, RuntimeError):
        return 0
    params.peers = before.peers
    params.total_uploaded = before.total_uploaded
    params.seeding_time, params.added_time = before.seeding_time, before.added_time
    return int(before.total_uploaded)
