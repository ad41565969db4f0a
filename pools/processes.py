"""Work spread over processes: results in order, nothing left behind when the parent is killed."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import TypeVar

from ..errors import RunError
from .allocation import keep_freed_memory
from .parallel import MEMORY_VARIABLE, memory_limited

T = TypeVar("T")
R = TypeVar("R")


def map_ordered(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    memory: str | None = None,
    *,
    apart: bool = False,
    preload: str | None = None,
    give_up: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield ``function(task)`` for every task, in order, computed by ``workers`` processes.

    Tasks are drawn a little ahead of the results, so memory holds a few of them at a time. One
    worker means this process, unless it is to be ``apart``. The first exception ends the work; a
    worker that dies without a word is a RunError. ``preload`` names a module that workers need
    but this process does not; else it is the function's. Work that goes on is waited for at the
    end; ``give_up`` is called first if the end is an early one. ``memory`` is what the database
    in each may take.
    """
    if workers <= 1 and not apart:
        for task in tasks:
            with memory_limited(memory):
                result = function(task)
            yield result
        return
    # Not fork: the parent may have threads (Arrow, DuckDB) whose locks a fork would freeze.
    module = _module_of(function)
    context = ForkServerContext() if module == "__main__" else ScriptlessContext()
    # Workers are forked from a server that has imported what they need, once for all.
    context.set_forkserver_preload([preload or module])
    executor = ProcessPoolExecutor(workers, context, _start_worker, (memory,))
    waiting: deque[Future[R]] = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(function, task))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException as error:
        if give_up is not None:
            give_up()
        if isinstance(error, BrokenProcessPool):
            raise RunError(
                "a worker process was killed (out of memory?); run the same command again, "
                "perhaps with fewer --workers"
            ) from error
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _ScriptlessProcess(ForkServerProcess):
    """A process that does not run its parent's script."""

    def start(self) -> None:
        """Start without what ``multiprocessing`` would find the script by."""
        with _main_lock:
            script = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = script


class ScriptlessContext(ForkServerContext):
    """A fork server whose processes do not run the parent's script again.

    ``multiprocessing`` does that so that functions of the script are found; without a guard
    (``if __name__ == "__main__"``) the script then does all its work once more in each process,
    or fails. Functions of modules need none of it.
    """

    Process = _ScriptlessProcess


_main_lock = threading.Lock()


def _module_of(function: Callable[..., object]) -> str:
    return getattr(function, "func", function).__module__  # "func" is that of a partial


def _start_worker(memory: str | None) -> None:
    """Leave interrupts to the parent, and die with it: an orphan would go on writing files."""
    if memory is not None:
        os.environ[MEMORY_VARIABLE] = memory
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
