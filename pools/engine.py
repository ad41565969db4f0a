"""Engines: who works on the partitions of a task, and where.

A room cuts its work into partitions (files of metadata, shards, evaluation tasks) and maps a
function over them. Who does that work is no business of the room: it is given an engine. There
are two, processes of this machine (``Local``) and a Ray cluster (``curate/engine``). Results are
the same for either, whatever the number of workers, for they come in the order of the partitions
and a partition's result depends on nothing but the partition.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from .parallel import default_workers, map_threads

T = TypeVar("T")
R = TypeVar("R")

ALL = sys.maxsize
"""However many workers there are: for ``threads``."""


class Engine(ABC):
    """Maps functions over partitions. A context manager; ``close`` lets the workers go."""

    distributed: bool
    """Whether workers may be on other machines, with file systems and processors of their own."""
    workers: int | None
    """How many partitions are worked on at the same time, if that is known."""

    @abstractmethod
    def map(
        self,
        function: Callable[[T], R],
        partitions: Iterable[T],
        *,
        count: int | None = None,
        worth: int | None = None,
        threads: int = 0,
        gpu: bool = False,
    ) -> Iterator[R]:
        """Yield ``function(partition)`` for every partition, in order.

        Partitions are drawn only a little ahead of the results, so that a few of them are in
        memory at a time. Function, partitions and results travel: the function is one of a
        module, the others are small and can be pickled. A partition may be worked on twice (its
        worker may die), even after the others are done, so what the function writes it writes
        whole and always the same, and never over what it reads.

        ``count`` is how many partitions there are, if that is known. The rest are hints to local
        processes: how many of them are ``worth`` their start where nobody said how many, and up
        to how many workers may be ``threads``, for work that waits or lets go of Python's lock.
        ``gpu`` asks a cluster for a worker with a GPU, if it has any.

        The first exception ends the work and is raised here. Raises RunError when workers die.
        """

    def require(self, extra: str, *modules: str) -> None:  # noqa: B027
        """Raise MissingError unless every worker has these modules.

        ``extra`` is the extra that brings them, or the only one of them.
        """

    def reach(self, *places: Path | str, contents: bool = False) -> None:  # noqa: B027
        """Raise MissingError unless every worker sees the same at these paths as this process.

        Of files, their sizes and times are compared, or else their ``contents``.
        """

    def close(self) -> None:  # noqa: B027
        """Let the workers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Local(Engine):
    """Processes of this machine; ``workers`` None is as many as are worth their start.

    The database in each may take ``memory``, such as ``2GB``.
    """

    distributed = False

    def __init__(self, workers: int | None = None, memory: str | None = None) -> None:
        self.workers, self.memory = workers, memory

    def map(
        self,
        function: Callable[[T], R],
        partitions: Iterable[T],
        *,
        count: int | None = None,
        worth: int | None = None,
        threads: int = 0,
        gpu: bool = False,
    ) -> Iterator[R]:
        """Yield the results, in order; one worker is this process."""
        del gpu
        workers = self.workers or worth or default_workers()
        if count is not None:
            workers = max(1, min(workers, count))
        if workers <= threads:
            return map_threads(function, partitions, workers)
        from .processes import map_ordered  # it brings what threads have no use for

        return map_ordered(function, partitions, workers, self.memory)


Workers = Engine | int | None
"""Who does the work: an engine, so many processes of this machine, or as many as are worth it."""


def engine_of(workers: Workers) -> Engine:
    """Return the engine that is meant."""
    return workers if isinstance(workers, Engine) else Local(workers)
