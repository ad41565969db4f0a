"""The download: its threads, and what becomes of what they bring.

A file is put in its place when its digest is right; a source that brings wrong bytes, or none, is
named and bears the consequence.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...errors import UnsafeInputError
from ...progress import say, warn
from ...urls import split_url
from .ipfs import GatewayMirror, is_cid_of
from .job import Job, Yielded
from .mirror import PATIENCE, Mirror
from .queue import Queue
from .source import Source, Standing
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from .blocks import Layers
    from .folder import Folder
    from .order import Wanted
    from .pieces import Pieces
    from .spans import Spans

CONNECTIONS = 3


class Engine:
    """Fetches files from all sources at once. One use: ``add`` sources, ``resume``, ``run``.

    ``queue`` knows afterwards what could not be had, and what each source gave.
    """

    def __init__(
        self,
        folder: Folder,
        wanted: list[Wanted],
        layers: Callable[[], Layers | None],
        pieces: Callable[[], Pieces | None],
        advance: Callable[[int], None],
        patience: float = PATIENCE,
    ) -> None:
        self._folder, self._layers, self._pieces = folder, layers, pieces
        self.advance = advance
        self._patience = patience
        self._jobs = [Job(item, folder.partial_of(item)) for item in wanted]
        self.queue = Queue(self._jobs)
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    # -- sources ----------------------------------------------------------------------------

    def add_mirror(self, base: str, connections: int = CONNECTIONS) -> Source:
        """Add an HTTP server; ``base`` plus a path is a file."""
        return self._add_server(base, "http", connections, lambda: Mirror(base, self._patience))

    def add_gateway(self, base: str, connections: int = CONNECTIONS) -> Source:
        """Add an IPFS gateway; files are asked for by their CIDs."""
        cids = {job.wanted.path: job.wanted.cid for job in self._jobs if job.wanted.cid}
        source = self._add_server(
            base, "ipfs", connections, lambda: GatewayMirror(base, cids, self._patience)
        )
        for job in self._jobs:
            if job.wanted.cid is None:  # as in a Metalink or a torrent that nobody has signed
                job.banned[source] = "cannot be asked, for nobody has told the file's CID"
        return source

    def _add_server(
        self, base: str, channel: str, connections: int, opened: Callable[[], Mirror]
    ) -> Source:
        source = self.add_source(base, channel)
        try:
            split_url(base)
        except UnsafeInputError as error:  # a signed manifest can name such a mirror, too
            source.drop(str(error))
            warn(f"{error}: dropped")
            return source
        for _ in range(connections):
            self.add_thread(self._serve_from, opened, source)
        return source

    def add_source(self, name: str, channel: str) -> Source:
        """Add a source whose thread is its own matter."""
        source = Source(name, channel)
        self.queue.sources.append(source)
        return source

    def add_thread(self, target: Callable[..., None], *arguments: object) -> None:
        """Add a thread that fetches; what it raises ends the download."""

        def guarded() -> None:
            try:
                target(*arguments)
            except BaseException as error:  # noqa: BLE001  raised again by run()
                self.stop(error)

        self._threads.append(threading.Thread(target=guarded, daemon=True))

    def resume(self) -> int:
        """Go on with what an earlier run has left; return how many bytes that is."""
        return sum(job.resume() for job in self._jobs)

    def run(self) -> None:
        """Fetch everything that can be.

        Raises StorageError where the disk is full, KeyboardInterrupt.
        """
        self.queue.settle()
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
        self._error = self._error or error
        self.queue.stop()

    # -- a thread of a mirror ---------------------------------------------------------------

    def _serve_from(self, opened: Callable[[], Mirror], source: Source) -> None:
        mirror = opened()

        def tell(amount: int) -> None:
            source.gave(amount)
            self.advance(amount)

        while (job := self.queue.take(source, mirror.abort)) is not None:
            try:
                job.fetch(mirror, source, tell)
                self.check(job, source, mirror)
            except Yielded:
                mirror.close()
                self.queue.give_back(job)
            except SourceTrouble as trouble:
                self.trouble(source, job, trouble)
                self.queue.give_back(job, last=True)
        mirror.close()

    # -- what sources do wrong --------------------------------------------------------------

    def drop(self, source: Source, reason: str) -> None:
        """Ask nothing more of a source, and say why."""
        with self.queue.lock:
            source.drop(reason)
            self.queue.settle()
        warn(f"{source.name}: {reason}: dropped")

    def trouble(self, source: Source, job: Job, trouble: SourceTrouble) -> None:
        """Note what a source did wrong, and say so when that has consequences."""
        with self.queue.lock:
            if job.wanted_by is not None or self.queue.stopped:
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

    def check(self, job: Job, source: Source, mirror: Mirror | None = None) -> None:
        """Put a fetched file in its place if it is right; else fetch its wrong blocks again.

        ``mirror`` is where the source can be asked for more. Raises SourceTrouble if it fails.
        """
        digest = job.digest()
        right, bad = self._judge(job, source, mirror, digest)
        if right:
            self._folder.put(job.wanted, job.prepared, digest)
            source.files += 1
            self.queue.done(job)
            return
        with self.queue.lock:
            if bad == []:
                job.start_over()
                self.queue.done(job, "its digests in the manifest contradict each other")
                return
            for one in job.reject(bad):
                self._convict(one, job, len(bad or ()))
            self.advance(-job.left)
            self.queue.give_back(job)

    def _judge(
        self, job: Job, source: Source, mirror: Mirror | None, digest: str
    ) -> tuple[bool, Spans | None]:
        """Tell whether a file is right, and if not, which blocks are wrong, as far as known."""
        wanted = job.wanted
        if wanted.sha256 is not None:
            right = digest == wanted.sha256
            return right, None if right else job.bad_blocks(self._layers())
        # Nobody has told the SHA-256: what a torrent tells has to do. libtorrent has compared
        # each of its own pieces with that.
        if wanted.cid is not None:
            return is_cid_of(job.prepared, wanted.cid) or job.is_all_from("ipfs"), None
        bad = job.bad_blocks(self._layers())
        if bad is None and job.is_all_from("bittorrent"):
            return True, None
        if bad is None and mirror is not None and (pieces := self._pieces()) is not None:
            bad = self._compare_pieces(job, source, mirror, pieces)
        return bad == [], bad

    def _compare_pieces(
        self, job: Job, source: Source, mirror: Mirror, pieces: Pieces
    ) -> Spans | None:
        def read(path: str, size: int, start: int, end: int) -> bytes:
            data = b""
            try:
                data = b"".join(mirror.read(path, size, start, end))
            except SourceTrouble as trouble:
                if trouble.consequence is not Consequence.SKIP:
                    raise
            source.gave(len(data))
            if len(data) < end - start:
                raise SourceTrouble(f"does not give {path}, which shares a piece with it",
                                    Consequence.SKIP)  # fmt: skip
            return data

        bad, lied = job.bad_pieces(pieces, read)
        if lied and {giver for _, _, giver in job.given} - {source}:
            # What others gave of this file may be right for all that this source can show.
            raise SourceTrouble("gives wrong bytes of a piece of it", Consequence.SKIP)
        return bad

    def _convict(self, source: Source, job: Job, blocks: int) -> None:
        what = f"{blocks:,} wrong block{'' if blocks == 1 else 's'}" if blocks else "wrong bytes"
        job.banned[source] = f"gave {what}"
        before = source.standing
        source.convict(f"{job.wanted.path}: gave {what}")
        others = any(s.standing is Standing.GOOD for s in self.queue.sources)
        follows = ""
        if source.standing is Standing.DROPPED and before is not source.standing:
            follows = ": dropped"
        elif before is Standing.GOOD and others:
            follows = ": asked again only for what nobody else has"
        warn(f"{source.name} gave {what} of {job.wanted.path}{follows}")
