"""Who fetches the shards: processes of this machine, or img2dataset's own distributors.

A distributor runs a job over lists with so many processes, and yields the numbers of the shards
as they are whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from importlib.util import find_spec

from ...errors import MissingError, UsageError
from ...pools.engine import Engine
from ...pools.processes import map_ordered
from .job import Job, Reporting, Row
from .lists import Lists

Distributor = Callable[[Job, Iterable[Row], int], Generator[int, None, None]]


def distributor_of(given: str | Engine | Distributor) -> Distributor:
    """Return the distributor that is meant: by name, by engine, or the function given.

    Raises UsageError for an unknown name, MissingError without img2dataset.
    """
    if isinstance(given, Engine):
        given.require("download", "img2dataset")
        return _theirs("ray") if given.distributed else _local
    if callable(given):
        return given
    known = {"local": _local, "multiprocessing": _theirs("multiprocessing"), "ray": _theirs("ray")}
    if given not in known:
        raise UsageError(f"distributor {given!r}: expected one of {', '.join(known)}")
    if find_spec("img2dataset") is None:
        raise MissingError("fetching needs img2dataset: pip install 'datacomp[download]'")
    return known[given]


def _local(job: Job, rows: Iterable[Row], processes: int) -> Generator[int, None, None]:
    """Spread over processes of this machine; they end when this one is killed."""
    preload = f"{__package__}.worker"
    stop = Lists(job.out).stop
    yield from map_ordered(job, rows, processes, apart=True, preload=preload, give_up=stop)


def _theirs(name: str) -> Distributor:
    """Spread with a distributor of img2dataset; Ray's uses the cluster that is connected."""

    def distribute(job: Job, rows: Iterable[Row], processes: int) -> Generator[int, None, None]:
        if name == "ray" and find_spec("ray") is None:
            raise MissingError("Ray is not installed: pip install 'datacomp[ray]'")
        from . import worker  # noqa: F401  first, since it keeps img2dataset's imports quiet

        # isort: split
        from img2dataset import distributor

        run, errors = getattr(distributor, f"{name}_distributor"), contextlib.nullcontext
        left = list(rows)
        at_once = len(left)
        if name == "ray":
            from ..engine.cluster import ray_errors as errors

            job, at_once = _for_cluster(job, at_once)
        try:
            for first in range(0, len(left), at_once):
                with errors():
                    run(processes, Reporting(job), left[first : first + at_once], 1000, 1)
        except BaseException:
            Lists(job.out).stop()
            raise
        yield from (number for number, _ in left)

    return distribute


def _for_cluster(job: Job, lists: int) -> tuple[Job, int]:
    """Return a job for as many processes as Ray will run, and how many lists to give it at once.

    img2dataset hands Ray a task for each list, and Ray runs as many as there are processors:
    where these are more than a host may have connections, the lists are given in turns.
    """
    import ray

    if not ray.is_initialized():
        ray.init()
    processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    most = min(job.options.processes or processors, job.options.per_host)
    shared = min(processors, most, lists)
    return replace(job, shared=shared), lists if processors <= most else shared
