"""The download: jobs on one side, sources on the other, and who fetches what.

Each mirror has a few threads, each of which fetches one file at a time, from the front of the
list. Peers take from anywhere, so that they have something to give each other. A file changes
hands where it stands when its source fails or another one could bring it much sooner. It is put
in its place when its digest is right.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ...progress import say, warn
from .ipfs import GatewayMirror, is_cid_of
from .job import Job, Yielded
from .mirror import PATIENCE, Mirror
from .source import Source, Standing
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from .blocks import Layers
    from .folder import Folder
    from .order import Wanted

CONNECTIONS = 3
WORTH_A_CHANGE = 3.0
"""Seconds that a change of hands must save."""
FASTER = 2.0


class Engine:
    """Fetches files from all sources at once. One use: ``add`` sources, then ``run``."""

    def __init__(
        self,
        folder: Folder,
        wanted: list[Wanted],
        layers: Callable[[], Layers | None],
        advance: Callable[[int], None],
        patience: float = PATIENCE,
    ) -> None:
        self._folder, self._layers, self.advance = folder, layers, advance
        self._patience = patience
        self._lock = threading.Condition(threading.RLock())
        self._pending = deque(Job(item, folder.partial_of(item)) for item in wanted)
        self._active: dict[Job, tuple[Source, Callable[[], None], float, int]] = {}
        self._error: BaseException | None = None
        self._stopped = False
        self.sources: list[Source] = []
        self.failed: dict[str, str] = {}
        self._threads: list[threading.Thread] = []

    # -- sources ----------------------------------------------------------------------------

    def add_mirror(self, base: str, connections: int = CONNECTIONS) -> Source:
        """Add an HTTP server; ``base`` plus a path is a file."""
        return self._add_server(base, "http", connections, lambda: Mirror(base, self._patience))

    def add_gateway(self, base: str, connections: int = CONNECTIONS) -> Source:
        """Add an IPFS gateway; files are asked for by their CIDs."""
        cids = {job.wanted.path: job.wanted.cid for job in self._pending if job.wanted.cid}
        return self._add_server(
            base, "ipfs", connections, lambda: GatewayMirror(base, cids, self._patience)
        )

    def _add_server(
        self, base: str, channel: str, connections: int, opened: Callable[[], Mirror]
    ) -> Source:
        source = self.add_source(base, channel)
        for _ in range(connections):
            self.add_thread(self._serve_from, opened, source)
        return source

    def add_source(self, name: str, channel: str) -> Source:
        """Add a source whose thread is its own matter."""
        source = Source(name, channel)
        self.sources.append(source)
        return source

    def add_thread(self, target: Callable[..., None], *arguments: object) -> None:
        """Add a thread that fetches; what it raises ends the download."""

        def guarded() -> None:
            try:
                target(*arguments)
            except BaseException as error:  # noqa: BLE001  raised again by run()
                self.stop(error)

        self._threads.append(threading.Thread(target=guarded, daemon=True))

    def run(self) -> None:
        """Fetch everything that can be; ``failed`` then says what could not, and why.

        Raises StorageError where the disk is full, KeyboardInterrupt.
        """
        for job in self._pending:
            self.advance(job.resume())
        self._settle()
        for thread in self._threads:
            thread.start()
        try:
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(0.2)
        except BaseException as error:
            self.stop(error)
            for thread in self._threads:
                thread.join(self._patience)
            raise
        if self._error is not None:
            raise self._error

    def stop(self, error: BaseException) -> None:
        """End the download."""
        with self._lock:
            self._error = self._error or error
            self._stopped = True
            for _, abort, _, _ in self._active.values():
                abort()
            self._lock.notify_all()

    # -- who fetches what -------------------------------------------------------------------

    def take(
        self, source: Source, abort: Callable[[], None], wait: bool = True, anywhere: bool = False
    ) -> Job | None:
        """Return a job for a source; None when there is none left (or now, without ``wait``).

        ``abort`` is called, from any thread, when the job should change hands or all should end.
        """
        with self._lock:
            while not self._stopped and source.standing is not Standing.DROPPED:
                rest = source.rests_until - time.monotonic()
                job = None if rest > 0 else self._choose(source, anywhere)
                if job is not None:
                    self._pending.remove(job)
                    job.kept_for = job.wanted_by = None
                    source.begin()
                    self._active[job] = (source, abort, time.monotonic(), job.left)
                    return job
                if not self._pending:
                    self._ask_for_change(source)
                if not wait or not (self._pending or self._active):
                    break
                self._lock.wait(0.25)
            return None

    def _choose(self, source: Source, anywhere: bool) -> Job | None:
        if not anywhere:
            return next((job for job in self._pending if self._may(source, job)), None)
        possible = [job for job in self._pending if self._may(source, job)]
        return random.choice(possible) if possible else None

    def _may(self, source: Source, job: Job) -> bool:
        """Tell whether a source may fetch a job: others first, if its bytes were once wrong."""
        if source.standing is Standing.DROPPED or source in job.banned:
            return False
        if job.kept_for not in (None, source):
            return False
        return source.standing is Standing.GOOD or not any(
            other.standing is Standing.GOOD and other not in job.banned for other in self.sources
        )

    def _ask_for_change(self, source: Source) -> None:
        """With nothing else to do, take over the job whose end is farthest away."""
        now = time.monotonic()
        worst, most = None, WORTH_A_CHANGE
        for job, (owner, _, since, left) in self._active.items():
            if owner is source or job.wanted_by is not None or not self._may(source, job):
                continue
            rate = (left - job.left) / max(now - since, 0.1)
            waits = job.left / max(rate, 1.0)
            if source.rate > FASTER * rate and waits > most and now - since > 1.0:
                worst, most = job, waits
        if worst is not None:
            worst.wanted_by = source
            self._active[worst][1]()

    def give_back(self, job: Job, last: bool = False) -> None:
        """Let another source go on with a job: next, or after all others."""
        with self._lock:
            self._active.pop(job, None)
            taker = job.wanted_by
            job.kept_for = taker if taker and taker.standing is not Standing.DROPPED else None
            job.wanted_by = None
            (self._pending.append if last else self._pending.appendleft)(job)
            self._settle()

    def _settle(self) -> None:
        """Give up the jobs that no source is left for, and wake everyone."""
        with self._lock:
            for job in list(self._pending):
                if job.kept_for is not None and job.kept_for.standing is Standing.DROPPED:
                    job.kept_for = None
                able = [s for s in self.sources if s.standing is not Standing.DROPPED]
                if all(source in job.banned for source in able):
                    self._pending.remove(job)
                    self.failed[job.wanted.path] = _why(job, self.sources)
            self._lock.notify_all()

    def finished(self) -> bool:
        """Tell whether there is nothing left to do."""
        with self._lock:
            return self._stopped or not (self._pending or self._active)

    def is_whole(self) -> bool:
        """Tell whether everything was fetched."""
        with self._lock:
            return not (self._stopped or self._pending or self._active or self.failed)

    def only_source(self, source: Source) -> bool:
        """Tell whether what is left can come from this source alone."""
        with self._lock:
            owners = {job: owner for job, (owner, *_) in self._active.items()}
            if any(owner is not source for owner in owners.values()):
                return False
            return all(
                other is source or other.standing is Standing.DROPPED or other in job.banned
                for job in (*self._pending, *owners)
                for other in self.sources
            )

    def drop(self, source: Source, reason: str) -> None:
        """Ask nothing more of a source, and say why."""
        with self._lock:
            source.drop(reason)
            self._settle()
        warn(f"{source.name}: {reason}: dropped")

    # -- a thread of a mirror ---------------------------------------------------------------

    def _serve_from(self, opened: Callable[[], Mirror], source: Source) -> None:
        mirror = opened()

        def tell(amount: int) -> None:
            source.gave(amount)
            self.advance(amount)

        while (job := self.take(source, mirror.abort)) is not None:
            try:
                job.fetch(mirror, source, tell)
            except Yielded:
                mirror.close()
                self.give_back(job)
            except SourceTrouble as trouble:
                self.trouble(source, job, trouble)
                self.give_back(job, last=True)
            else:
                self.check(job, source)
        mirror.close()

    def trouble(self, source: Source, job: Job, trouble: SourceTrouble) -> None:
        """Note what a source did wrong, and say so when that has consequences."""
        with self._lock:
            if job.wanted_by is not None or self._stopped:
                return
            before = source.standing
            if trouble.consequence is Consequence.DROP:
                source.drop(str(trouble))
            elif trouble.consequence is Consequence.SKIP:
                job.banned[source] = str(trouble)
                source.note(f"{job.wanted.path}: {trouble}")
                say(f"{source.name}: {job.wanted.path}: {trouble}", 1)
            else:
                source.strike(str(trouble))
            if source.standing is not before:
                warn(f"{source.name} {trouble}: dropped")

    # -- is it right? -----------------------------------------------------------------------

    def check(self, job: Job, source: Source) -> None:
        """Put a fetched file in its place if it is right; else fetch its wrong blocks again."""
        digest = job.digest()
        if self._is_right(job, source, digest):
            self._folder.put(job.wanted, job.prepared, digest)
            source.files += 1
            with self._lock:
                self._active.pop(job, None)
                self._lock.notify_all()
            return
        layers = self._layers()
        found = job.find_faults(layers)
        with self._lock:
            if found is None:
                self._active.pop(job, None)
                self.failed[job.wanted.path] = "its digests in the manifest contradict each other"
                job.start_over()
                self._lock.notify_all()
                return
            guilty, blocks = found
            for one in guilty:
                self._convict(one, job, blocks if layers else 0)
            self.advance(-job.left)
            self.give_back(job)

    def _is_right(self, job: Job, source: Source, digest: str) -> bool:
        wanted = job.wanted
        if wanted.sha256 is not None:
            return digest == wanted.sha256
        # Nobody has told the SHA-256: what a torrent tells has to do. libtorrent has compared
        # each of its own pieces with that.
        if wanted.cid is not None:
            return is_cid_of(job.prepared, wanted.cid) or job.is_all_from("ipfs")
        found = job.bad_blocks(self._layers())
        return job.is_all_from("bittorrent") if found is None else not found

    def _convict(self, source: Source, job: Job, blocks: int) -> None:
        what = f"{blocks:,} wrong block{'' if blocks == 1 else 's'}" if blocks else "wrong bytes"
        job.banned[source] = f"gave {what}"
        before = source.standing
        source.convict(f"{job.wanted.path}: gave {what}")
        others = any(s.standing is Standing.GOOD for s in self.sources)
        if before is Standing.GOOD and others:
            warn(f"{source.name} gave {what} of {job.wanted.path}: dropped")
        else:
            warn(f"{source.name} gave {what} of {job.wanted.path}")


def _why(job: Job, sources: list[Source]) -> str:
    """Write why no source is left for a job."""
    reasons = [
        f"{source.name} {job.banned.get(source) or (source.reasons or ['?'])[-1]}"
        for source in sources
    ]
    return "; ".join(reasons) or "no source has it"
