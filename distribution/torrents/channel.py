"""Peers as one of the sources of a download.

The session downloads into a folder of its own. It claims files when it has someone to get them
from; a file that is there is flushed, linked to where files are prepared
and verified like any other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import write_bytes
from ...errors import DatacompError, IntegrityError
from ...progress import say, warn
from ..getting.folder import RESUME
from . import pointer
from .session import Net, open_session, wait_for

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
FLUSH_SECONDS = 60.0
STOP_SECONDS = 5.0
LONELY = 3.0
"""How many times the patience with a server peers are waited for when there is no one else."""


class Channel:
    """The peers of one torrent. ``torrent`` returns the bytes of the file, or raises."""

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
    ) -> None:
        self._engine, self._source, self._folder = engine, source, folder
        self._torrent, self._net, self._peers = torrent, net, peers
        self._patience, self._manifest = patience, manifest
        self._asked, self._answered = 0.0, net.lan or manifest is None
        self._claimed: dict[int, tuple[Job, list[tuple[int, int]], int]] = {}

    def run(self) -> None:
        """Take part in the download until it is over. A thread runs this."""
        try:
            data = self._torrent()
            self._start(data)
        except DatacompError as error:
            self._engine.drop(self._source, str(error))
            return
        try:
            self._loop()
        finally:
            self._stop()

    # -- the session ------------------------------------------------------------------------

    def _start(self, data: bytes) -> None:
        import libtorrent as lt

        params: Any = lt.load_torrent_buffer(data)
        self._resume(params, lt)
        files = params.ti.layout()
        single = files.num_files() == 1 and str(files.file_path(0)) == params.ti.name()
        self._sizes = [files.file_size(number) for number in range(files.num_files())]
        self._paths = [str(files.file_path(number)) for number in range(files.num_files())]
        cut = 0 if single else len(f"{params.ti.name()}/")
        self._numbers = {
            path[cut:]: number
            for number, path in enumerate(self._paths)
            if not files.file_flags(number) & files.flag_pad_file
        }
        params.save_path = str(self._folder.torrent)
        params.file_priorities = [0] * files.num_files()
        # Web seeds are mirrors, and asked as such.
        params.url_seeds = []
        params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        self._folder.torrent.mkdir(parents=True, exist_ok=True)
        self._session = open_session(self._net)
        self._handle = self._session.add_torrent(params)
        for peer in self._peers:
            self._handle.connect_peer(peer)

    def _resume(self, params: Any, lt: Any) -> None:
        """Take up which pieces an earlier run had; libtorrent checks where it has none."""
        path = self._folder.torrent / RESUME
        with contextlib.suppress(OSError, RuntimeError):
            before = lt.read_resume_data(path.read_bytes())
            if before.info_hashes == params.ti.info_hashes():
                params.have_pieces = before.have_pieces
                params.unfinished_pieces = before.unfinished_pieces
                params.peers = before.peers

    def _loop(self) -> None:
        heard = saved = time.monotonic()
        last = 0
        while not self._engine.finished():
            for alert in self._session.pop_alerts():
                self._alert(alert)
            status = self._handle.status()
            if status.errc.value():
                self._engine.drop(self._source, status.errc.message())
                return
            given = status.total_payload_download
            self._source.gave(given - last)
            now = time.monotonic()
            if given > last or not self._alone():
                heard = now
            last = given
            self._advance()
            self._return_asked()
            self._claim(status)
            if now - heard > LONELY * self._patience:
                self._engine.drop(self._source, f"no peer gave anything for {now - heard:.0f} s")
                return
            if not self._answered and now - self._asked > ASK_SECONDS and self._manifest:
                self._asked = now
                pointer.ask(self._session, self._manifest.key, self._manifest.name)
            if now - saved > SAVE_SECONDS:
                saved = now
                self._handle.save_resume_data()
            time.sleep(TICK)

    def _stop(self) -> None:
        for number in list(self._claimed):
            self._return(number)
        self._session.pause()
        if not self._engine.is_whole():
            self._handle.save_resume_data()
            self._keep(wait_for(self._session, "save_resume_data_alert", STOP_SECONDS, self._alert))
        self._session.remove_torrent(self._handle)

    def _alert(self, alert: Any) -> None:
        kind = type(alert).__name__
        if kind == "save_resume_data_alert":
            self._keep(alert)
        elif kind == "dht_mutable_item_alert" and self._manifest is not None:
            self._compare(pointer.read(alert, self._manifest.key, self._manifest.name))
        elif kind in ("file_error_alert", "hash_failed_alert", "peer_ban_alert"):
            self._source.note(alert.message())
            say(alert.message(), 1)

    def _keep(self, alert: Any) -> None:
        """Write down which pieces are there, for the next run."""
        import libtorrent as lt

        if alert is not None:
            with contextlib.suppress(DatacompError):
                data = lt.write_resume_data_buf(alert.params)
                write_bytes(self._folder.torrent / RESUME, data)

    def _compare(self, found: pointer.DhtPointer | None) -> None:
        """Compare the version being fetched with the newest one that the DHT knows of."""
        manifest = self._manifest
        if found is None or manifest is None or self._answered:
            return
        self._answered = True
        if found.serial > manifest.serial:
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
        return self._engine.only_source(self._source)

    def _claim(self, status: Any) -> None:
        """Take on files, when there is a peer to get them from."""
        if not status.num_peers and not self._alone():
            return
        want = max(AHEAD_BYTES, self._source.rate * AHEAD_SECONDS)
        while self._alone() or sum(job.left for job, _, _ in self._claimed.values()) < want:
            job = self._engine.take(self._source, lambda: None, wait=False, anywhere=True)
            if job is None:
                return
            number = self._numbers.get(job.wanted.path)
            if number is None or self._sizes[number] != job.wanted.size:
                job.banned[self._source] = "has no such file in its torrent"
                self._engine.give_back(job)
                continue
            # What a mirror has given of it does not count here.
            self._engine.advance(job.left - job.wanted.size)
            self._claimed[number] = (job, job.missing, 0)
            self._handle.file_priority(number, 4)

    def _advance(self) -> None:
        """Count what has come, and hand on the files that are there."""
        if not self._claimed:
            return
        progress = self._handle.file_progress(1)  # whole pieces only
        ready = []
        for number, (job, missing, before) in list(self._claimed.items()):
            done = progress[number]
            self._engine.advance(done - before)
            self._claimed[number] = (job, missing, done)
            job.missing = [(done, job.wanted.size)] if done < job.wanted.size else []
            if done == job.wanted.size:
                ready.append(number)
        if ready and self._flush():
            for number in ready:
                job, _, _ = self._claimed.pop(number)
                self._hand_on(job, self._folder.torrent / self._paths[number])

    def _flush(self) -> bool:
        """Wait until what libtorrent calls done is in the files: it says so before."""
        for alert in self._session.pop_alerts():  # one of an earlier flush would mislead us
            self._alert(alert)
        self._handle.flush_cache()
        return (
            wait_for(self._session, "cache_flushed_alert", FLUSH_SECONDS, self._alert) is not None
        )

    def _hand_on(self, job: Job, staged: Path) -> None:
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

    def _return_asked(self) -> None:
        for number, (job, _, _) in list(self._claimed.items()):
            if job.wanted_by is not None:
                self._return(number)

    def _return(self, number: int) -> None:
        """Let a mirror have a file that was claimed."""
        job, missing, done = self._claimed.pop(number)
        self._handle.file_priority(number, 0)
        job.missing = missing
        self._engine.advance(job.wanted.size - job.left - done)
        self._engine.give_back(job)
