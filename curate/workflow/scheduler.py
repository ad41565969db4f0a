"""Run tasks that depend on each other in processes of their own, and remember what is done.

A task whose fingerprint (its inputs, its settings, the version of the code) stands in its
record is not run again; so a rerun after any interruption goes on where it stopped. Processes
come from a fork server that has imported the heavy libraries once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ... import errors
from ...durable import digest, write_json
from ...errors import DatacompError, RunError, StorageError
from ...progress import duration, say, set_verbosity, status

PRELOAD = "datacomp.curate.workflow.preload"
_REDRAW_SECONDS = 1.0
CODE_VERSION = 1
"""Raised whenever a stage would give other bytes for the same inputs."""


@dataclass
class Task:
    """One stage of one dataset: a function of plain values in a process of its own.

    ``settings`` is what its result depends on besides the tasks it needs, ``outputs`` what must
    still be there for it to count as done; ``exclusive`` names a resource that only one task
    may hold (the pool file).
    """

    key: str
    stage: str
    run: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    settings: Any = None
    outputs: tuple[Path, ...] = ()
    exclusive: str | None = None


@dataclass
class Record:
    """What is remembered of a finished task."""

    fingerprint: str
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class _State:
    """Where a run of the scheduler stands."""

    waiting: list[Task]
    total: int
    running: dict[Connection, tuple[Task, Any, float]] = field(default_factory=dict)
    done: dict[str, Record] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failure: DatacompError | None = None

    def draw(self, parallel: int) -> None:
        """Show on a terminal what runs for how long, and a guess at the time left."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        names = ", ".join(f"{t.key} {duration(now - s)}" for t, _, s in self.running.values())
        text = f"[{len(self.done)}/{self.total}] {names}"
        left = self._left(parallel, now)
        if left is not None:
            text += f"; about {duration(left)} left"
        status(text)

    def _left(self, parallel: int, now: float) -> float | None:
        """Guess the seconds left from those that tasks of the same stages took; None if unknown."""
        means = {stage: sum(found) / len(found) for stage, found in self.seconds.items()}
        running = [task for task, _, _ in self.running.values()]
        if any(task.stage not in means for task in [*self.waiting, *running]):
            return None
        left = sum(means[task.stage] for task in self.waiting)
        left += sum(max(means[t.stage] - (now - s), 0) for t, _, s in self.running.values())
        return left / parallel

    def clear_line(self) -> None:
        """Make room for a lasting line."""
        if sys.stderr.isatty():
            status("")


class Scheduler:
    """Runs a graph of tasks, at most ``parallel`` at the same time."""

    def __init__(self, folder: Path, parallel: int) -> None:
        self.folder, self.parallel = folder, parallel

    def record(self, key: str) -> Record | None:
        """Return what is remembered of a task, or None."""
        try:
            values = json.loads((self.folder / f"{key}.json").read_bytes())
            return Record(values["fingerprint"], values["seconds"], values["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def fingerprint(self, task: Task, done: dict[str, Record]) -> str:
        """Return the digest of what a task's result depends on."""
        return digest(
            {
                "task": task.key,
                "code": CODE_VERSION,
                "settings": task.settings,
                "needs": {name: done[name].fingerprint for name in task.needs},
                "results": {name: stable(done[name].result) for name in task.needs},
            }
        )

    def is_done(self, task: Task, done: dict[str, Record]) -> Record | None:
        """Return the record of a task that need not run again."""
        record = self.record(task.key)
        if record is None or record.fingerprint != self.fingerprint(task, done):
            return None
        return record if all(path.exists() for path in task.outputs) else None

    def run(self, tasks: list[Task], again: frozenset[str] = frozenset()) -> dict[str, Record]:
        """Run what is not done (or whose key is in ``again``) and return every record.

        When a task fails, those under way are finished, no new ones begin, and the first error
        is raised.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        state = _State(list(tasks), len(tasks))
        context = _context()
        with _no_orphans(state.running):
            while state.waiting or state.running:
                moved = self._start_ready(state, again, context)
                if state.running:
                    self._collect(state)
                elif not moved:
                    break
        state.clear_line()
        if state.failure is not None:
            raise state.failure
        return state.done

    def _start_ready(self, state: _State, again: frozenset[str], context: Any) -> bool:
        """Start the tasks whose time has come; tell whether anything moved."""
        moved = False
        for task in list(state.waiting):
            if state.failure is not None or not set(task.needs) <= set(state.done):
                continue
            found = None if task.key in again else self.is_done(task, state.done)
            if found is not None:
                state.done[task.key] = found
            else:
                held = {other.exclusive for other, _, _ in state.running.values()} - {None}
                if len(state.running) >= self.parallel or task.exclusive in held:
                    continue
                (self.folder / f"{task.key}.json").unlink(missing_ok=True)
                receiver, sender = context.Pipe(duplex=False)
                arguments = (sender, task.run, task.arguments, str(self._lock(task.key)))
                process = context.Process(target=_child, args=arguments)
                process.start()
                sender.close()
                state.running[receiver] = (task, process, time.monotonic())
            state.waiting.remove(task)
            moved = True
        return moved

    def _collect(self, state: _State) -> None:
        """Wait for a task to end (drawing the state meanwhile) and record what came of it."""
        ready = wait(list(state.running), timeout=_REDRAW_SECONDS)
        if not ready:
            state.draw(self.parallel)
        for receiver in ready:
            assert isinstance(receiver, Connection)
            task, process, started = state.running.pop(receiver)
            result, error = _outcome(receiver, process, task)
            seconds = time.monotonic() - started
            if error is not None:
                state.failure = state.failure or error
                continue
            record = Record(self.fingerprint(task, state.done), round(seconds, 2), result)
            write_json(self.folder / f"{task.key}.json", vars(record))
            state.done[task.key] = record
            state.seconds.setdefault(task.stage, []).append(seconds)
            state.clear_line()
            say(f"[{len(state.done)}/{state.total}] {task.key}: {duration(seconds)}")

    def _lock(self, key: str) -> Path:
        return self.folder / f".{key}.lock"


def stable(result: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from run to run (times), so that fingerprints do not."""
    return {name: value for name, value in result.items() if name not in ("seconds", "note")}


@contextlib.contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, or raise StorageError."""
    from ...durable import storage_errors

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                f"{folder}: another 'datacomp run' is at work there; wait for it or stop it"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _context() -> Any:
    """Start the fork server; Ctrl-C in the terminal is for this process alone."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context


@contextlib.contextmanager
def _no_orphans(running: dict[Connection, tuple[Task, Any, float]]) -> Iterator[None]:
    """Stop every child when this process is interrupted."""
    try:
        yield
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _child(
    sender: Connection, run: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], lock: str
) -> None:
    """Run a task, send back its result or its error, and never outlive the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its children by itself,
    signal.signal(signal.SIGTERM, _leave)  # and gently: semaphores must be given back
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    set_verbosity(-1)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a killed study's child may take a moment to go
        try:
            message: tuple[str, Any] = ("result", run(*arguments))
        except DatacompError as error:
            message = ("error", (type(error).__name__, str(error)))
        except BaseException as error:  # noqa: BLE001  the parent tells it
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            message = ("error", ("RunError", " ".join(text.split())))
    with contextlib.suppress(OSError):  # the parent may be gone
        sender.send(message)
        sender.close()


def _leave(*_: object) -> None:
    raise SystemExit(143)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _outcome(
    receiver: Connection, process: Any, task: Task
) -> tuple[dict[str, Any], DatacompError | None]:
    try:
        kind, value = receiver.recv()
    except EOFError:
        process.join()
        return {}, RunError(
            f"{task.key}: its process died (exit code {process.exitcode}); if the machine ran out "
            "of memory, lower train.parallel; run the same command again to go on"
        )
    finally:
        receiver.close()
    process.join()
    if kind == "result":
        return value, None
    name, message = value
    found = getattr(errors, name, RunError)
    return {}, found(f"{task.key}: {message}")
