"""Seeding releases: every version, in both torrents, without reading again what is known."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DatacompError, DataError, UsageError
from ...progress import say, warn
from ..release import Release, Releases, SigningKey
from ..release.torrents import MAX_TORRENT_BYTES
from . import pointer, resume
from .gone import leave_out, missing_files
from .session import Net, listening, load_torrent, open_session, parse_peers

POINTER = "latest.json"
NEWS_SECONDS = 2.0
CALL_SECONDS = 30.0
SETTLE_SECONDS = 5.0
PUT_SECONDS = 1800.0
SAVE_SECONDS = 300.0
STOP_SECONDS = 10.0


@dataclass
class Seeded:
    """One torrent being seeded; ``missing`` counts files that are not there (any more)."""

    version: str
    kind: str
    infohash: str
    handle: Any
    missing: int
    uploaded_before: int = 0
    errors: list[str] = field(default_factory=list)


class Seeder:
    """Seeds a folder of releases; a context manager that stops cleanly.

    New versions are noticed, and what was taken back is no longer given to anyone. With the
    release ``key``, the pointer to the newest version is kept in the DHT.
    """

    def __init__(
        self,
        folder: Path | str,
        net: Net,
        peers: tuple[str, ...] = (),
        key: SigningKey | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._net, self._peers = net, parse_peers(peers)
        self._key, self._pointed = key, 0
        self._seeded: dict[str, Seeded] = {}
        self._state: tuple[int, int] | None = None
        self._started = time.monotonic()
        self._saved = time.monotonic()

    def __enter__(self) -> Seeder:
        # Taken before the versions are read: what is published meanwhile is news later.
        self._state = self._pointer_state()
        releases = Releases(self.folder)
        releases.latest  # noqa: B018  an empty folder is told before the network is used
        self.session = open_session(self._net)
        self.port = listening(self.session, self._net)
        self._add_all(releases)
        self._settle()
        self.call()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.session.pause()
        self._save()

    # -- torrents ---------------------------------------------------------------------------

    def _add_all(self, releases: Releases) -> None:
        """Seed every version; one whose withdrawn files have changed is added anew."""
        for release in releases.versions:
            for kind in ("v1", "hybrid"):
                name = release.manifest.torrents[kind]["file"]
                self._add(release, kind, release.folder / name)

    def _add(self, release: Release, kind: str, path: Path) -> None:
        import libtorrent as lt

        try:
            with path.open("rb") as file:
                params = load_torrent(file.read(MAX_TORRENT_BYTES + 1), str(path))
        except (DataError, OSError) as error:
            warn(f"not seeded: {error}")
            return
        named = release.manifest.torrents[kind]
        hashes = params.ti.info_hashes()
        v2 = str(hashes.v2) if hashes.has_v2() else None
        expected = (named.get("infohash") or named["infohash_v1"], named.get("infohash_v2"))
        if (str(hashes.v1), v2) != expected:
            warn(f"{path}: not seeded: not the torrent that its manifest names")
            return
        gone = missing_files(release, params.ti)
        known = self._seeded.get(expected[0])
        if known is not None:
            if known.missing == len(gone):
                return
            self.session.remove_torrent(known.handle)
        flags = lt.torrent_flags
        params.save_path = str(release.folder)
        params.url_seeds = []
        params.flags &= ~(flags.auto_managed | flags.paused)
        # Files of a release are hard links into datasets: nothing is ever fetched into them, were
        # it a piece shared with a file that was taken back, or one that was found to be wrong.
        params.flags |= flags.upload_mode
        if gone:
            leave_out(params, gone)
        else:
            # The digests were taken when the version was made. A piece is still checked before
            # it is first given to anyone.
            params.flags |= flags.seed_mode
        before = resume.restore(self.folder, params, expected[0])
        handle = self.session.add_torrent(params)
        self._seeded[expected[0]] = Seeded(
            release.manifest.version, kind, expected[0], handle, len(gone), before
        )

    def _settle(self) -> None:
        """Wait a moment until libtorrent has looked at what was added."""
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            states = [str(seeded.handle.status().state) for seeded in self._seeded.values()]
            if not any("checking" in state for state in states):
                break
            time.sleep(0.01)

    def call(self) -> None:
        """Connect to the peers that were named, if they are not connected."""
        for seeded in self._seeded.values():
            for peer in self._peers:
                seeded.handle.connect_peer(peer)

    def look_for_news(self) -> bool:
        """Take up new versions; return whether there was one."""
        state = self._pointer_state()
        if state == self._state:
            return False
        try:
            self._add_all(Releases(self.folder))
        except DatacompError as error:
            say(f"{error}")
            return False
        self._state = state
        return True

    def point(self) -> bool:
        """Put the pointer to the newest version into the DHT; return whether that can be done."""
        if self._key is None or self._net.lan or not self.session.is_dht_running():
            return False
        manifest = Releases(self.folder).latest.manifest
        if manifest.key != self._key.public:
            raise UsageError(
                f"{self.folder}: is signed with the key {manifest.key}, not with {self._key.public}"
            )
        pointer.put(self.session, manifest, self._key)
        return True

    def run(
        self, stop: threading.Event, tell: Callable[[dict[str, Any]], None], every: float
    ) -> None:
        """Seed until ``stop`` is set; hand the status to ``tell`` every so many seconds."""
        told = news = called = time.monotonic()
        tell(self.status())
        pointed = -PUT_SECONDS
        while not stop.wait(0.2):
            self._read_alerts()
            now = time.monotonic()
            if now - news >= NEWS_SECONDS:
                news = now
                if self.look_for_news():
                    pointed = -PUT_SECONDS
            if now - pointed >= PUT_SECONDS and self.point():
                pointed = now
            if now - called >= CALL_SECONDS:
                called = now
                self.call()
            if now - self._saved >= SAVE_SECONDS:
                self._save()
            if now - told >= every:
                told = now
                tell(self.status())

    # -- status -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what is seeded, to how many, and how much was given."""
        torrents = [_status(seeded) for seeded in self._seeded.values()]
        return {
            "folder": str(self.folder),
            "listen": self._net.listen,
            "port": self.port,
            "seconds": round(time.monotonic() - self._started, 1),
            "dht_nodes_with_pointer": self._pointed,
            "peers": sum(one["peers"] for one in torrents),
            "uploaded": sum(one["uploaded"] for one in torrents),
            "upload_rate": sum(one["upload_rate"] for one in torrents),
            "torrents": torrents,
        }

    def _read_alerts(self) -> None:
        for alert in self.session.pop_alerts():
            self._alert(alert)

    def _alert(self, alert: Any) -> None:
        kind = type(alert).__name__
        if kind == "dht_put_alert":
            self._pointed = alert.num_success
        if kind in ("torrent_error_alert", "file_error_alert", "hash_failed_alert"):
            text = alert.message()
            for seeded in self._seeded.values():
                if seeded.handle == alert.handle and text not in seeded.errors[-5:]:
                    seeded.errors.append(text)
                    warn(text)

    # -- what outlives the process ----------------------------------------------------------

    def _save(self) -> None:
        """Write what each torrent gave so far and whom it knows, bounded in time."""
        self._saved = time.monotonic()
        waiting = 0
        for seeded in self._seeded.values():
            if seeded.handle.is_valid():
                seeded.handle.save_resume_data()
                waiting += 1
        until = time.monotonic() + STOP_SECONDS
        while waiting and time.monotonic() < until:
            self.session.wait_for_alert(500)
            for alert in self.session.pop_alerts():
                kind = type(alert).__name__
                if kind == "save_resume_data_alert":
                    self._keep(alert.params)
                waiting -= kind in ("save_resume_data_alert", "save_resume_data_failed_alert")
                self._alert(alert)

    def _keep(self, params: Any) -> None:
        seeded = self._seeded.get(str(params.info_hashes.v1))
        if seeded is not None:  # libtorrent's own count misses the last second
            resume.keep(self.folder, params, _status(seeded)["uploaded_ever"])

    def _pointer_state(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.folder / POINTER)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def _status(seeded: Seeded) -> dict[str, Any]:
    found = seeded.handle.status()
    return {
        "version": seeded.version,
        "kind": seeded.kind,
        "infohash": seeded.infohash,
        "state": str(found.state),
        "missing_files": seeded.missing,
        "peers": found.num_peers,
        "uploaded": found.total_payload_upload,
        "uploaded_ever": seeded.uploaded_before + found.total_payload_upload,
        "upload_rate": found.upload_payload_rate,
        "errors": seeded.errors[-5:],
    }
