"""Peers as one of the sources of a download.

The session downloads into a folder of its own. It claims files when it has someone to get them
from. A file that is there is flushed, linked to where files are prepared and verified like any
other; of a file that a mirror takes over, the pieces that are there are copied.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...durable import storage_errors
from ...errors import DatacompError, IntegrityError, StorageError
from ...progress import say, warn
from ..getting.spans import both, size_of
from . import pointer
from .download import Download, Part
from .session import Net

if TYPE_CHECKING:
    from ..getting.engine import Engine
    from ..getting.folder import Folder
    from ..getting.job import Job
    from ..getting.source import Source
    from ..release import Manifest

TICK = 0.1
AHEAD_BYTES = 64 << 20
AHEAD_SECONDS = 5.0
SAVE_SECONDS = 15.0
ASK_SECONDS = 1.0
ASK_AGAIN_SECONDS = 30.0
"""Between questions once a node has named the version being fetched: another may know a newer."""
LONELY = 3.0
"""How many times the patience with a server peers are waited for when there is no one else."""
GONE_SECONDS = 5.0
"""How long they are waited for when a server says that all that is left was taken back."""
BEGUN_SECONDS = 2.0
"""How long a mirror that takes over a file waits for the pieces that peers have begun."""


@dataclass
class Claim:
    """A file that peers are to give. ``asked`` is when a mirror asked to take it over."""

    job: Job
    part: Part
    asked: float | None = None


class Channel:
    """The peers of one torrent, and web seeds of which only its pieces tell what is right.

    ``torrent`` returns the bytes of the file, or raises.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        folder: Folder,
        torrent: Callable[[], bytes],
        net: Net,
        peers: tuple[tuple[str, int], ...],
        patience: float,
        manifest: Manifest | None = None,
        seeds: Sequence[str] = (),
    ) -> None:
        self._engine, self._queue = engine, engine.queue
        self._source, self._folder = source, folder
        self._torrent, self._net, self._peers = torrent, net, peers
        self._patience, self._manifest, self._seeds = patience, manifest, seeds
        self._asked, self._answered = 0.0, net.lan or manifest is None
        self._ask_every = ASK_SECONDS
        self._claims: list[Claim] = []

    def run(self) -> None:
        """Take part in the download until it is over. A thread runs this."""
        try:
            data = self._torrent()
            self._download = Download(
                data, self._source.name, self._folder.torrent, self._net, self._peers, self._seeds,
                self._alert,
            )  # fmt: skip
        except DatacompError as error:
            self._engine.drop(self._source, f"cannot take part: {error}")
            return
        try:
            self._loop()
        finally:
            self._stop()

    def _loop(self) -> None:
        heard = saved = time.monotonic()
        last = 0
        while not self._queue.finished():
            status = self._download.status()
            if status.errc.value():
                self._download.status()  # hears of the file that it is about
                if not self._queue.finished():
                    self._engine.drop(self._source, status.errc.message())
                return
            given = status.total_payload_download
            self._source.gave(given - last)
            now = time.monotonic()
            if given > last or not self._alone():
                heard = now
            last = given
            self._advance(status.pieces)
            self._return_asked(now)
            self._claim(status)
            enough = LONELY * self._patience
            if not status.num_peers and self._queue.is_gone():
                enough = min(enough, GONE_SECONDS)
            if now - heard > enough:
                self._engine.drop(self._source, f"gave nothing for {now - heard:.0f} s")
                return
            self._ask_for_pointer(now)
            if now - saved > SAVE_SECONDS:
                saved = now
                self._download.save()
            time.sleep(TICK)

    def _stop(self) -> None:
        if not self._queue.finished():
            self._give_back(self._claims)
        for claim in self._claims:
            self._queue.give_back(claim.job)
        self._download.close(keep=not self._queue.is_whole())

    def _alert(self, alert: Any) -> None:
        kind = type(alert).__name__
        if kind == "dht_mutable_item_alert" and self._manifest is not None:
            self._compare(pointer.read(alert, self._manifest.key, self._manifest.name))
        elif kind in ("file_error_alert", "hash_failed_alert", "peer_ban_alert"):
            self._source.note(alert.message())
            say(alert.message(), 1)
            if kind == "file_error_alert":
                self._stop_if_full(alert)

    def _stop_if_full(self, alert: Any) -> None:
        """End the whole download where the disk is full: no other source could go on either."""
        if alert.error.category().name() not in ("system", "generic"):
            return
        try:
            with storage_errors(alert.filename()):
                raise OSError(alert.error.value(), alert.error.message())
        except StorageError as error:
            self._engine.stop(error)
        except OSError:
            return

    # -- the pointer in the DHT -------------------------------------------------------------

    def _ask_for_pointer(self, now: float) -> None:
        if not self._answered and now - self._asked > self._ask_every and self._manifest:
            self._asked = now
            pointer.ask(self._download.session, self._manifest.key, self._manifest.name)

    def _compare(self, found: pointer.DhtPointer | None) -> None:
        """Compare the version being fetched with the newest one that the DHT knows of."""
        manifest = self._manifest
        # No answer but a newer one ends the asking: what is signed once can be told for ever by
        # a node that has missed what came after, or hides it.
        if found is None or manifest is None or self._answered or found.serial < manifest.serial:
            return
        self._ask_every = ASK_AGAIN_SECONDS
        if found.serial > manifest.serial:
            self._answered = True
            warn(
                f"{manifest.name}: the DHT knows of number {found.serial}, this source only of "
                f"{manifest.version} (number {manifest.serial}); it is behind"
            )
        if found.serial == manifest.serial and found.manifest_sha256 != manifest.sha256:
            self._engine.stop(
                IntegrityError(
                    f"{manifest.name}: the DHT knows of another manifest of number "
                    f"{found.serial}, signed with the same key; its keeper has to explain that"
                )
            )

    # -- claims -----------------------------------------------------------------------------

    def _alone(self) -> bool:
        return self._queue.only_source(self._source)

    def _claim(self, status: Any) -> None:
        """Take on files, when there is a peer to get them from."""
        if not status.num_peers and not self._alone():
            return
        want = max(AHEAD_BYTES, self._source.rate * AHEAD_SECONDS)
        while self._alone() or sum(claim.job.left for claim in self._claims) < want:
            job = self._queue.take(self._source, lambda: None, wait=False, anywhere=True)
            if job is None:
                return
            part = self._download.part(job.wanted.path)
            if part is None or part.size != job.wanted.size:
                job.banned[self._source] = "has no such file in its torrent"
                self._queue.give_back(job)
                continue
            if job.wanted.sha256 is None and job.left < job.wanted.size:
                # Only the torrent tells what is right, and only of what came through it.
                self._engine.advance(job.left - job.wanted.size)
                job.start_over()
            self._download.want(part, job.missing)
            self._claims.append(Claim(job, part))

    def _advance(self, pieces: list[bool]) -> None:
        """Count what has come, and hand on the files that are there."""
        ready = []
        for claim in self._claims:
            there = size_of(both(claim.job.missing, self._download.there(claim.part, pieces)))
            self._engine.advance(there - claim.job.elsewhere)
            claim.job.elsewhere = there
            if not claim.job.left:
                ready.append(claim)
        if ready and self._download.flush():
            for claim in ready:
                self._claims.remove(claim)
                self._download.leave(claim.part)
                self._hand_on(claim)

    def _hand_on(self, claim: Claim) -> None:
        job, staged = claim.job, claim.part.place
        if size_of(job.missing) < job.wanted.size:
            job.receive(staged, job.missing, self._source)
        else:
            job.prepared.unlink(missing_ok=True)
            if not staged.exists() and not job.wanted.size:
                staged.parent.mkdir(parents=True, exist_ok=True)
                staged.touch()
            try:
                os.link(staged, job.prepared)
            except OSError:  # a file system without hard links
                shutil.copyfile(staged, job.prepared)
            job.taken_whole(self._source)
        self._engine.check(job, self._source)

    def _return_asked(self, now: float) -> None:
        """Let mirrors have the files they asked for, once the pieces begun are there."""
        ready = []
        for claim in self._claims:
            if claim.job.wanted_by is not None:
                claim.asked = claim.asked or now
                begun = self._download.finish_begun(claim.part)
                if not begun or now - claim.asked > BEGUN_SECONDS:
                    ready.append(claim)
        if ready:
            self._give_back(ready)

    def _give_back(self, claims: list[Claim]) -> None:
        """Let others go on with files where peers have got to."""
        flushed = self._download.flush()
        pieces = self._download.status().pieces
        for claim in list(claims):
            job, part = claim.job, claim.part
            self._claims.remove(claim)
            self._download.leave(part)
            there = both(job.missing, self._download.there(part, pieces)) if flushed else []
            if job.wanted.sha256 is None:
                there = []
            self._engine.advance(size_of(there) - job.elsewhere)
            job.receive(part.place, there, self._source)
            self._queue.give_back(job)
