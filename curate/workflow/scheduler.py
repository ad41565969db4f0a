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
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ... import errors
from ...durable import digest, write_json
from ...errors import DatacompError, RunError
from ...pools.allocation import keep_freed_memory
from ...pools.processes import ScriptlessContext
from ...progress import Board, duration, say, set_verbosity, tell_through, warn
from .lifeline import PARENT, tie_stage
from .outlook import Outlook, Watch

PRELOAD = "datacomp.curate.workflow.preload"
_WAKE_SECONDS = 0.5
CODE_VERSION = 2
"""Raised whenever a stage would give other bytes for the same inputs."""


@dataclass
class Task:
    """One stage of one dataset: a function of plain values in a process of its own.

    ``settings`` is what its result depends on besides the tasks it needs, ``outputs`` what must
    still be there for it to count as done; ``exclusive`` names a resource that only one task
    may hold (the pool file). ``label`` names it for people. Tasks of the same ``pace`` (by
    default those of the same stage) take about as long; ``amount`` is how many of ``unit`` a
    task will have counted in its progress at the end, where that is known.
    """

    key: str
    stage: str
    run: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    settings: Any = None
    outputs: tuple[Path, ...] = ()
    exclusive: str | None = None
    label: str = ""
    pace: str = ""
    amount: int | None = None
    unit: str = "samples"

    def __post_init__(self) -> None:
        self.label, self.pace = self.label or self.key, self.pace or self.stage


@dataclass
class Record:
    """What is remembered of a finished task."""

    fingerprint: str
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Child:
    """A task under way: its process, and how far it is."""

    task: Task
    process: Any
    watch: Watch


@dataclass
class _State:
    """Where a run of the scheduler stands."""

    waiting: list[Task]
    total: int
    outlook: Outlook
    running: dict[Connection, _Child] = field(default_factory=dict)
    done: dict[str, Record] = field(default_factory=dict)
    failure: DatacompError | None = None
    board: Board = field(default_factory=Board)

    def draw(self) -> None:
        """Show what runs, how far it is, and the time left for the whole."""
        if not self.running or not self.board.due():
            return
        now = time.monotonic()
        watches = [child.watch for child in self.running.values()]
        lines = [watch.text(now) for watch in watches]
        left = self.outlook.text(self.waiting, watches, now)
        if self.failure is not None:
            left = "one failed; waiting for those under way"
        self.board.draw([*lines, f"{len(self.done)} of {self.total} stages done, {left}"])


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
        earlier = {task.key: self.record(task.key) for task in tasks}
        remembered = {key: record.seconds for key, record in earlier.items() if record is not None}
        state = _State(list(tasks), len(tasks), Outlook(self.parallel, remembered))
        context = _context()
        with _no_orphans(state.running):
            while state.waiting or state.running:
                moved = self._start_ready(state, again, context)
                if state.running:
                    self._collect(state)
                elif not moved:
                    break
        state.board.clear()
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
                held = {child.task.exclusive for child in state.running.values()} - {None}
                if len(state.running) >= self.parallel or task.exclusive in held:
                    continue
                (self.folder / f"{task.key}.json").unlink(missing_ok=True)
                receiver, sender = context.Pipe(duplex=False)
                arguments = (sender, task.run, task.arguments, str(self._lock(task.key)))
                process = context.Process(target=_child, args=arguments)
                process.start()
                sender.close()
                state.running[receiver] = _Child(task, process, Watch(task, time.monotonic()))
            state.waiting.remove(task)
            moved = True
        return moved

    def _collect(self, state: _State) -> None:
        """Take what the tasks say; record what came of those that have ended."""
        ready = wait(list(state.running), timeout=_WAKE_SECONDS)
        for receiver in ready:
            assert isinstance(receiver, Connection)
            child = state.running[receiver]
            ended = _listen(receiver, child, state.board)
            if ended is None:
                continue
            del state.running[receiver]
            result, error = ended
            if error is not None:
                state.failure = state.failure or error
                continue
            self._note_done(state, child, result)
        state.draw()

    def _note_done(self, state: _State, child: _Child, result: dict[str, Any]) -> None:
        task, seconds = child.task, time.monotonic() - child.watch.started
        record = Record(self.fingerprint(task, state.done), round(seconds, 2), result)
        write_json(self.folder / f"{task.key}.json", vars(record))
        state.done[task.key] = record
        state.outlook.taken.setdefault(task.pace, []).append(seconds)
        state.board.clear()
        say(f"[{len(state.done)}/{state.total}] {task.label}: {duration(seconds)}")

    def _lock(self, key: str) -> Path:
        return self.folder / f".{key}.lock"


def stable(result: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from run to run (times), so that fingerprints do not."""
    return {name: value for name, value in result.items() if name not in ("seconds", "note")}


def _context() -> Any:
    """Start the fork server; Ctrl-C in the terminal is for this process alone."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = ScriptlessContext()
    context.set_forkserver_preload([PRELOAD])
    resource_tracker.ensure_running()  # which would unblock the signal
    # Blocked, not ignored: what comes meanwhile is not lost on this process, only on the server.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.environ[PARENT] = str(os.getpid())
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[PARENT]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _no_orphans(running: dict[Connection, _Child]) -> Iterator[None]:
    """Stop every child when this process is interrupted or told to end."""
    try:
        with _ending_on_terminate():
            yield
    finally:
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.process.join(5)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()


@contextlib.contextmanager
def _ending_on_terminate() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that children are stopped gently."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _child(
    sender: Connection, run: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], lock: str
) -> None:
    """Run a task, send back progress and its result or error, and never outlive the parent."""
    from ...pools.connection import patience  # with a database, which the parent needs not

    tie_stage()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its children by itself,
    signal.signal(signal.SIGTERM, _leave)  # and gently: semaphores must be given back
    sending = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with contextlib.suppress(OSError), sending:  # the parent may be gone
            sender.send((kind, value))

    set_verbosity(-1)
    tell_through(send)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a killed study's child may take a moment to go
        try:
            with patience():
                message: tuple[str, Any] = ("result", run(*arguments))
        except DatacompError as error:
            message = ("error", (type(error).__name__, str(error)))
        except BaseException as error:  # noqa: BLE001  the parent tells it
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            message = ("error", ("RunError", " ".join(text.split())))
    send(*message)
    sender.close()


def _leave(*_: object) -> None:
    raise SystemExit(143)


def _listen(
    receiver: Connection, child: _Child, board: Board
) -> tuple[dict[str, Any], DatacompError | None] | None:
    """Take one message of a child; return what came of it, or None while it is under way."""
    kind: str
    value: Any
    try:
        kind, value = receiver.recv()
    except EOFError:
        kind, value = "died", None
    if kind == "progress":
        child.watch.note(value, time.monotonic())
        return None
    if kind in ("say", "warning"):
        board.clear()
        if kind == "say":
            say(f"{child.task.label}: {value[1]}", value[0])
        else:
            warn(f"{child.task.label}: {value}")
        return None
    receiver.close()
    child.process.join()
    if kind == "died":
        return {}, RunError(
            f"{child.task.key}: its process died (exit code {child.process.exitcode}); if the "
            "machine ran out of memory, lower train.parallel; run the same command again to go on"
        )
    if kind == "result":
        return value, None
    name, message = value
    return {}, getattr(errors, name, RunError)(f"{child.task.key}: {message}")
