"""The engine of many machines: partitions as tasks of a Ray cluster.

Ray places the tasks, moves functions and results, and does a task again when its worker or its
machine dies. What is here is little: tasks are handed over a few at a time and their results
taken in order, so that neither this process nor Ray's store ever holds many; and machines that
cannot do the work are refused before it begins.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ...errors import MissingError, RunError, UsageError
from ...pools.engine import Engine
from ...pools.parallel import default_workers
from ...progress import say, warn
from .choice import AUTO, HERE
from .nodes import alive, check_extra, check_nodes, check_places, check_room, has_room, too_much
from .work import Job, work

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 5
"""How often a partition is done again whose worker or machine died."""
STORE = 256 << 20
"""Bytes of shared memory for results on a cluster of this machine; more of them go to disk."""
SHARE = 0.7
"""Part of a machine's memory that its workers may take together, if nothing else is said."""
_WAIT_SECONDS = 10.0
_SETTINGS = bytes(3) + b"\x04" + bytes(5)
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS
"""How HTTP/2 begins on either side (RFC 9113, 3.4), which Ray's own protocol runs over."""


class RayEngine(Engine):
    """A Ray cluster: at ``address`` HOST:PORT, ``auto`` (this machine's) or ``local`` (made here).

    ``workers`` is how many partitions are worked on at the same time (None: as many as the
    cluster has processors), ``memory`` the bytes that each may take: Ray starts no more of them
    on a machine than fit, and the databases in them take no more. ``limit`` is for the databases
    alone, in DuckDB's words. Without either these take what DATACOMP_MEMORY says on the machine
    of the worker, or else the share of its processor.
    """

    distributed = True

    def __init__(
        self, address: str = AUTO, workers: int | None = None, memory: int | None = None,
        limit: str | None = None,
    ) -> None:  # fmt: skip
        self._ray = _import_ray()
        self._stack = contextlib.ExitStack()
        self._connect(address, workers, memory)
        try:
            self.nodes = check_nodes(self._ray)
            check_room(self._ray, memory)
            resources = self._ray.cluster_resources()
            cpus = max(1, int(resources.get("CPU", 0)))
            self.workers: int | None = min(workers or cpus, cpus)
            self._gpus = resources.get("GPU", 0) > 0
            self._reserved = memory
            self._limit = limit or (None if memory is None else _size(memory))
            self._share = _size(_share(self._ray))
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str, workers: int | None, memory: int | None) -> None:
        """Join a cluster, or make one of this machine alone."""
        ray = self._ray
        if address == AUTO:  # as Ray itself has it
            address = os.environ.get("RAY_ADDRESS") or AUTO
        if ray.is_initialized():
            return  # the caller's, who ends it too
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address == HERE:
                say("starting Ray on this machine", level=1)
                count = workers or default_workers()
                room = {} if memory is None else {"_memory": _room(memory, count)}
                ray.init(  # "local": even where another cluster runs
                    address="local", num_cpus=count, include_dashboard=False,
                    object_store_memory=STORE, **room, **quiet,
                )  # fmt: skip
            else:
                if address != AUTO:
                    _knock(address)
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _absent(address, error) from None
        self._stack.callback(ray.shutdown)

    @property
    def address(self) -> str:
        """HOST:PORT under which others can join the cluster."""
        return self._ray.get_runtime_context().gcs_address

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
        """Yield the results, in order, of tasks that Ray runs and repeats where it must."""
        del count, worth, threads
        ray, workers = self._ray, self.workers or 1
        options: dict[str, Any] = {
            "num_cpus": 1, "max_retries": RETRIES, "scheduling_strategy": "SPREAD",
            "name": getattr(function, "__name__", "partition"),
        }  # fmt: skip
        if gpu and self._gpus:
            options["num_gpus"] = 1
        if self._reserved is not None:
            options["memory"] = self._reserved
        if "num_gpus" in options:
            check_room(ray, self._reserved, gpu=True)
        run = ray.remote(work).options(**options)
        job = ray.put(Job.of(function, self._limit, self._share))
        pending = iter(partitions)
        waiting: deque[Any] = deque()
        unfinished: list[Any] = []
        more, told = True, False
        try:
            while more or waiting:
                while more and len(unfinished) < workers and len(waiting) < 2 * workers:
                    try:
                        reference = run.remote(job, next(pending))
                    except StopIteration:
                        more = False
                        break
                    waiting.append(reference)
                    unfinished.append(reference)
                if unfinished:
                    ready, unfinished = ray.wait(unfinished, timeout=_WAIT_SECONDS)
                    gone = not ready and not has_room(ray, self._reserved, "num_gpus" in options)
                    if gone and not told:
                        warn("no machine of the cluster is left that can do the work; waiting "
                             "for one to join")  # fmt: skip
                    told = gone
                while waiting and waiting[0] not in unfinished:
                    yield self._take(waiting.popleft())
        finally:
            for reference in unfinished:
                with contextlib.suppress(Exception):
                    ray.cancel(reference)

    def _take(self, reference: Any) -> Any:
        """Return a task's result; raise what it raised, and say what it said."""
        with ray_errors():
            done = self._ray.get(reference)
        for message in done.warnings:
            warn(message)
        return done.value

    def require(self, extra: str, *modules: str) -> None:
        """Raise MissingError, by name, for a machine that lacks some of these modules."""
        check_extra(self._ray, self.nodes, extra, modules)

    def reach(self, *places: Path | str, contents: bool = False) -> None:
        """Raise MissingError, by machine and path, for what a machine sees otherwise."""
        if places:
            found = [Path(place).absolute() for place in places]
            check_places(self._ray, self.nodes, found, contents)

    def close(self) -> None:
        """Leave the cluster; one that was made here ends."""
        self._stack.close()


@contextlib.contextmanager
def ray_errors() -> Iterator[None]:
    """Raise what a worker raised, or a RunError in one line, where Ray raises its own errors."""
    from ray import exceptions as errors

    try:
        yield
    except errors.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else RunError(_line(error)) from None
    except errors.OutOfMemoryError as error:
        raise RunError(
            f"a worker took more memory than its machine has ({_line(error)}); run the same "
            "command again with fewer --workers or more memory for each"
        ) from None
    except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
        raise RunError(
            f"the worker of a partition died whenever it was tried ({_line(error)}); run the "
            "same command again to go on"
        ) from None
    except errors.RayError as error:
        raise RunError(f"Ray: {_line(error)}; run the same command again to go on") from None


def _import_ray() -> Any:
    # Before the import: nothing is reported to anybody, and no warning of a coming default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.exceptions
    except ImportError:
        raise MissingError(
            "the engine ray needs the extra of that name: pip install 'datacomp[ray]'"
        ) from None
    return ray


def _knock(address: str) -> None:
    """See at once whether anybody is there, and speaks as Ray does; it would try for minutes."""
    host, _, port = address.rpartition(":")
    where = host.strip("[]"), int(port)
    with socket.create_connection(where, timeout=_WAIT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "1":
            return
        connection.sendall(_GREETING)
        with connection.makefile("rb") as answers:
            answer = answers.read(len(_SETTINGS))
    if answer[3:4] != _SETTINGS[3:4]:
        raise ConnectionError("what answers there is not Ray")


def _absent(address: str, error: Exception) -> MissingError:
    if address == HERE:
        return MissingError(f"Ray does not start on this machine: {_line(error)}")
    where = "on this machine" if address == AUTO else f"at {address}"
    return MissingError(
        f"no Ray cluster {where} ({_line(error)}); start one with 'ray start --head', or let "
        "--engine ray:local use this machine alone"
    )


def _room(memory: int, workers: int) -> int:
    """Return what this machine's workers may take together: what they ask, if there is as much."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory > machine:
        raise UsageError(too_much(memory, "this machine", machine))
    return min(memory * workers, machine)


def _size(count: int) -> str:
    return f"{count // 1000}KB"


def _share(ray: Any) -> int:
    """Return what each worker may take where each processor has one."""
    shares = [
        node["Resources"].get("memory", 0) / max(1, node["Resources"].get("CPU", 1))
        for node in alive(ray)
    ]
    return max(256 << 20, int(SHARE * min(shares, default=0)))


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
