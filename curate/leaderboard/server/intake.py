"""Take one submission from the network: bounded, checked, durable before it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....errors import DatacompError, StorageError
from ....evaluate.leaderboard.layout import unpack
from ....evaluate.leaderboard.make import suite_of
from ....evaluate.leaderboard.record import read_record
from ....evaluate.leaderboard.store import DuplicateError, RefusedError, admit
from ....pools.uids import UidArray
from .ledger import Ledger
from .live import Live

MEDIA = "application/x-tar"


class RejectedError(Exception):
    """An answer other than success: status, why, and more for machines."""

    def __init__(self, status: int, why: str, **more: Any) -> None:
        super().__init__(why)
        self.status, self.more = status, more


@dataclass(frozen=True)
class Limits:
    """What one submitter may do: ``max_bytes`` of a submission, ``per_hour`` of them."""

    max_bytes: int = 1 << 30
    per_hour: int = 120
    failures: int = 20
    """Wrong tokens of one address in ten minutes."""
    stall_seconds: float = 30.0


@dataclass(frozen=True)
class Intake:
    """Where submissions go, and the pools they are checked against, by scale."""

    store: Path
    live: Live
    ledger: Ledger
    limits: Limits = field(default_factory=Limits)
    pools: Mapping[str, UidArray] = field(default_factory=dict)

    async def receive(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], to: Path
    ) -> int:
        """Write a request's body to a file; return its size.

        Raises RejectedError for a body that is compressed, no tar, too large or that stalls; of one
        too large no more is read than its limit.
        """
        import anyio

        limit = self.limits.max_bytes
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RejectedError(415, "send the tar as it is, without a content encoding")
        if headers.get("content-type", "").split(";")[0].strip().lower() != MEDIA:
            raise RejectedError(415, f"expected a plain tar ({MEDIA})")
        said = headers.get("content-length", "")
        if said and (not said.isdigit() or len(said) > 18 or int(said) > limit):
            raise RejectedError(413, f"a submission has at most {limit:,} bytes here")
        size = 0
        chunks = aiter(body)
        async with await anyio.open_file(to, "wb") as file:
            while True:
                try:
                    with anyio.fail_after(self.limits.stall_seconds):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    raise RejectedError(408, "the request stalled") from None
                if chunk is None:
                    return size
                size += len(chunk)
                if size > limit:
                    raise RejectedError(413, f"a submission has at most {limit:,} bytes here")
                await file.write(chunk)

    def judge(self, archive: Path, folder: Path) -> tuple[str, bool]:
        """Unpack, check and publish a tar that was received; return its id and whether it is new.

        It is on disk, under its final name, when this returns. Raises RejectedError otherwise.
        """
        folder.mkdir()
        try:
            unpack(archive, folder, self.limits.max_bytes)
            archive.unlink()
            scale = read_record(folder)[0].scale_name
            suite_of(scale)
            report, fresh = admit(self.store, folder, "the submission", self.pools.get(scale))
        except RefusedError as error:
            rules = [
                {"rule": one.rule, "where": _clean(one.where, folder),
                 "what": _clean(one.what, folder)}
                for one in error.report.refused[:50]
            ]  # fmt: skip
            raise RejectedError(422, _clean(str(error), folder), refused=rules) from None
        except DuplicateError as error:
            raise RejectedError(409, str(error), other=error.id) from None
        except StorageError:
            raise RejectedError(507, "the server cannot store it now; try again later") from None
        except DatacompError as error:
            raise RejectedError(422, _clean(_clean(str(error), folder), archive)) from None
        assert report.id is not None
        if fresh:
            self.live.add(report)
        return report.id, fresh


def _clean(text: str, path: Path) -> str:
    """Leave the server's own paths out of what strangers are told."""
    return text.replace(f"{path}/", "").replace(str(path), "the submission")
