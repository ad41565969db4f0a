"""What a worker needs to know to fetch one shard; light, so that img2dataset is imported there."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ...pools.images import MAX_BYTES

PENDING = ".pending"
"""Folder below OUT of what is still to be fetched: a list for each shard, ``NNNNNNNN.arrow``."""
STOP = "stop"

Row = tuple[int, str]
"""A shard to fetch: its number and where its list lies. img2dataset's own form."""


class StoppedError(Exception):
    """The fetch was interrupted; the shard is not made."""


@dataclass(frozen=True)
class FetchOptions:
    """How images are fetched. The defaults are DataComp's.

    ``size`` and ``quality`` are those of the JPEGs: the longer side at most ``size`` px;
    ``boxes`` is the pool's column of faces to blur, shares of width and height, None for no
    blurring; ``verify`` is the digest to compare with the pool's, ``sha256`` or None; ``retry``
    names failures to try again instead of fetching what is pending; ``subset`` is a ``.npy`` of
    what to fetch; ``adopt`` takes over what img2dataset itself, or a pool that is lost,
    has begun in the folder.
    ``timeout`` is in seconds between two pieces of an answer; all of it may take
    six times as long. ``per_host`` is how many connections one host gets from all processes
    together.
    """

    size: int = 512
    quality: int = 95
    per_shard: int = 10_000
    boxes: str | None = "face_bboxes"
    min_size: int = 0
    verify: str | None = None
    retry: tuple[str, ...] = ()
    subset: Path | None = None
    adopt: bool = False
    honour_opt_out: bool = True
    user_agent_token: str | None = None
    allow_private: bool = False
    timeout: float = 10.0
    max_bytes: int = MAX_BYTES
    processes: int | None = None
    threads: int = 128
    per_host: int = 16

    def __post_init__(self) -> None:
        if self.verify not in (None, "sha256"):
            raise UsageError(f"--verify {self.verify!r}: expected sha256")
        for name in ("size", "per_shard", "timeout", "max_bytes", "threads", "per_host"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected more than 0")

    def lasting(self) -> dict[str, object]:
        """Return what all shards of one folder must have in common."""
        return {"size": self.size, "quality": self.quality, "boxes": self.boxes}


@dataclass(frozen=True)
class Job:
    """Fetches the shards it is called with into ``out``; raises what goes wrong.

    ``columns`` are the columns of the lists. ``shared`` is how many processes there are in all,
    at most ``options.per_host``.
    """

    out: Path
    options: FetchOptions
    columns: tuple[str, ...]
    shared: int

    def __call__(self, row: Row) -> int:
        """Fetch one shard; return its number."""
        from .worker import fetch_shard

        fetch_shard(self, row)
        return row[0]


@dataclass(frozen=True)
class Reporting:
    """A job as img2dataset's distributors want it: it returns whether all went well."""

    job: Job

    def __call__(self, row: Row) -> tuple[bool, Row]:
        """Fetch one shard; what goes wrong stands in the file ``NNNNNNNN.error``."""
        place = self.job.out / PENDING / f"{row[0]:08d}.error"
        try:
            self.job(row)
        except Exception as error:  # noqa: BLE001  told by the process that waits
            message = " ".join(str(error).split()) or type(error).__name__
            try:
                place.write_text(message)
            except OSError:
                print(f"shard {row[0]}: {message}", file=sys.stderr)
            return False, row
        return True, row


def be_quiet() -> None:
    """Keep what img2dataset brings with it from asking the network whether it is up to date."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("WANDB_MODE", "disabled")
