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
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ... import errors
from ...durable import digest, write_json
from ...errors import DatacompError, RunError, StorageError
from ...progress import duration, say, set_verbosity

PRELOAD = "datacomp.curate.workflow.preload"
CODE_VERSION = 1
"""Raised whenever a stage would give other bytes for the same inputs."""


@dataclass
class Task:
    """One stage of one dataset: a function of plain values in a process of its own.

    ``inputs`` receives the results of the tasks it needs and returns what the fingerprint
    covers; ``exclusive`` names a resource that only one task may hold (the pool file).
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
        done: dict[str, Record] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = list(tasks)
        running: dict[Connection, tuple[Task, Any, float]] = {}
        failure: DatacompError | None = None
        context = _context()
        with _no_orphans(running):
            while waiting or running:
                for task in list(waiting):
                    if failure is not None or not set(task.needs) <= set(done):
                        continue
                    found = None if task.key in again else self.is_done(task, done)
                    if found is not None:
                        done[task.key] = found
                        waiting.remove(task)
                        say(f"  {task.key}: done already", 1)
                        continue
                    held = {t.exclusive for t, _, _ in running.values()} - {None}
                    if len(running) >= self.parallel or task.exclusive in held:
                        continue
                    waiting.remove(task)
                    (self.folder / f"{task.key}.json").unlink(missing_ok=True)
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(
                        target=_child,
                        args=(sender, task.run, task.arguments, str(self._lock(task.key))),
                    )
                    process.start()
                    sender.close()
                    running[receiver] = (task, process, time.monotonic())
                    say(f"  {task.key} ...", 1)
                if not running:
                    if failure is not None or waiting:
                        break
                    continue
                for receiver in wait(list(running)):
                    assert isinstance(receiver, Connection)
                    task, process, started = running.pop(receiver)
                    result, error = _outcome(receiver, process, task)
                    seconds = time.monotonic() - started
                    if error is not None:
                        failure = failure or error
                        continue
                    record = Record(self.fingerprint(task, done), round(seconds, 2), result)
                    write_json(self.folder / f"{task.key}.json", vars(record))
                    done[task.key] = record
                    say(f"[{len(done)}/{len(tasks)}] {task.key}: {duration(seconds)}")
        if failure is not None:
            raise failure
        return done

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
