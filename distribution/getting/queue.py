"""What is still to be fetched, and who fetches what.

Each mirror has a few threads, each of which fetches one file at a time, from the front of the
list. Peers take from anywhere, so that they have something to give each other. A file changes
hands where it stands when its source fails or another one could bring it much sooner.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .mirror import GONE
from .source import Source, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .job import Job

WORTH_A_CHANGE = 3.0
"""Seconds that a change of hands must save."""
FASTER = 2.0


class Queue:
    """Jobs on one side, sources on the other. Safe to use from several threads.

    ``failed`` says of each file that no source is left for why that is so. ``lock`` guards jobs
    and the standing of sources, too.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.lock = threading.Condition(threading.RLock())
        self._pending = deque(jobs)
        self._active: dict[Job, tuple[Source, Callable[[], None], float, int]] = {}
        self.stopped = False
        self.sources: list[Source] = []
        self.failed: dict[str, str] = {}

    def take(
        self, source: Source, abort: Callable[[], None], wait: bool = True, anywhere: bool = False
    ) -> Job | None:
        """Return a job for a source; None when there is none left (or now, without ``wait``).

        ``abort`` is called, from any thread, when the job should change hands or all should end.
        """
        with self.lock:
            while not self.stopped and source.standing is not Standing.DROPPED:
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
                self.lock.wait(0.25)
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
        with self.lock:
            self._active.pop(job, None)
            taker = job.wanted_by
            job.kept_for = taker if taker and taker.standing is not Standing.DROPPED else None
            job.wanted_by = None
            (self._pending.append if last else self._pending.appendleft)(job)
            self.settle()

    def settle(self) -> None:
        """Give up the jobs that no source is left for, and wake everyone."""
        with self.lock:
            for job in list(self._pending):
                if job.kept_for is not None and job.kept_for.standing is Standing.DROPPED:
                    job.kept_for = None
                able = [s for s in self.sources if s.standing is not Standing.DROPPED]
                if all(source in job.banned for source in able):
                    self._pending.remove(job)
                    self.failed[job.wanted.path] = _why(job, self.sources)
            self.lock.notify_all()

    def finished(self) -> bool:
        """Tell whether there is nothing left to do."""
        with self.lock:
            return self.stopped or not (self._pending or self._active)

    def is_whole(self) -> bool:
        """Tell whether everything was fetched."""
        with self.lock:
            return not (self.stopped or self._pending or self._active or self.failed)

    def only_source(self, source: Source) -> bool:
        """Tell whether what is left is left to this source alone, as things stand."""
        with self.lock:
            owners = {job: owner for job, (owner, *_) in self._active.items()}
            if any(owner is not source for owner in owners.values()):
                return False
            return all(
                other is source or not self._may(other, job)
                for job in (*self._pending, *owners)
                for other in self.sources
            )

    def is_gone(self) -> bool:
        """Tell whether a server has said of everything left that its keeper has taken it back."""
        with self.lock:
            left = (*self._pending, *self._active)
            return bool(left) and all(GONE in job.banned.values() for job in left)

    def done(self, job: Job, failed: str | None = None) -> None:
        """Take a job off the list: it is finished, or nobody can do it."""
        with self.lock:
            self._active.pop(job, None)
            if failed is not None:
                self.failed[job.wanted.path] = failed
            self.lock.notify_all()

    def stop(self) -> None:
        """End the download: nobody gets a job any more, and all break off."""
        with self.lock:
            self.stopped = True
            for _, abort, _, _ in self._active.values():
                abort()
            self.lock.notify_all()


def _why(job: Job, sources: list[Source]) -> str:
    """Write why no source is left for a job."""
    reasons = [
        f"{source.name} {job.banned.get(source) or (source.reasons or ['?'])[-1]}"
        for source in sources
    ]
    return "; ".join(reasons) or "no source has it"
