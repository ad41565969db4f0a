"""Work spread over threads: results in order, and what workers may take."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MEMORY_VARIABLE = "DATACOMP_MEMORY"

T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def memory_limited(limit: str | None) -> Iterator[None]:
    """Let a database that is opened meanwhile, here or in a process of this one, take no more."""
    if limit is None:
        yield
        return
    before = os.environ.get(MEMORY_VARIABLE)
    os.environ[MEMORY_VARIABLE] = limit
    try:
        yield
    finally:
        del os.environ[MEMORY_VARIABLE]
        if before is not None:
            os.environ[MEMORY_VARIABLE] = before


def default_workers() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_threads(
    function: Callable[[T], R], tasks: Iterable[T], workers: int | None = None
) -> Iterator[R]:
    """Yield ``function(task)`` for every task, in order, computed a little ahead by threads.

    For work that waits for others or lets go of Python's lock. One worker means this thread.
    """
    workers = workers or default_workers()
    if workers == 1:
        yield from map(function, tasks)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for task in tasks:
                waiting.append(threads.submit(function, task))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
