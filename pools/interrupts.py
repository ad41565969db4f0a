"""Ctrl-C stops a query at once.

Python runs no signal handler while DuckDB works, and DuckDB, which looks for signals itself,
then waits for its other threads to finish what they do: minutes of a long scan. So a thread
waits for SIGINT at the one place where the operating system's handler leaves a note at once,
Python's wakeup file descriptor, and tells the connections.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Iterator

import duckdb

_connections: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
_watching = threading.Event()


def watch(connection: duckdb.DuckDBPyConnection) -> None:
    """Let Ctrl-C stop the queries of a connection."""
    _connections.add(connection)
    if _watching.is_set() or threading.current_thread() is not threading.main_thread():
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before != -1:  # an event loop's, which interrupts in its own way
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        return
    _watching.set()
    # A child has the descriptor, but not the thread, and must not stop its parent's queries.
    os.register_at_fork(after_in_child=_stop_watching)
    threading.Thread(target=_wait, args=(reading,), name="ctrl-c", daemon=True).start()


def _stop_watching() -> None:
    with contextlib.suppress(ValueError):  # forked from another thread
        signal.set_wakeup_fd(-1)
    _watching.clear()


def _wait(reading: int) -> None:
    while signals := os.read(reading, 64):
        # Whoever handles SIGINT otherwise may not want the query to end.
        plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if plain and signal.SIGINT in signals:
            _interrupt_all()  # a function of its own, so that this thread keeps no connection


def _interrupt_all() -> None:
    for connection in list(_connections):
        with contextlib.suppress(duckdb.Error):  # closed
            connection.interrupt()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C during a query be KeyboardInterrupt; DuckDB makes other errors of it."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise
