"""How far a whole suite is: one count of images over all of its tasks, with the time left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from ..progress import Progress
from .tasks import Task


class SuiteProgress:
    """Counts the samples of all tasks; a context manager as :class:`Progress` is."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._total = sum(task.size for task in tasks)
        self._tasks, self._number = len(tasks), 0
        self._end = 0
        self._progress: Progress | None = None

    def __enter__(self) -> SuiteProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.label = "evaluated"
            self._progress.__exit__(kind, error, trace)

    def begin(self, task: Task) -> None:
        """Turn to a task. The clock starts with the first: loading a model is not its pace."""
        if self._progress is None:
            self._progress = Progress("evaluating", self._total, "images").__enter__()
        self._number += 1
        place = f" (task {self._number} of {self._tasks})" if self._tasks > 1 else ""
        self._progress.label = f"evaluating {task.key}{place}"
        self._end = self._progress.done + task.size

    def advance(self, amount: int = 1) -> None:
        """Count images; a task whose samples have several never counts more than its size."""
        if self._progress is not None and self._progress.done < self._end:
            self._progress.advance(min(amount, self._end - self._progress.done))

    def end(self) -> None:
        """Leave the task: what was not counted of it, is."""
        if self._progress is not None:
            self._progress.advance(self._end - self._progress.done)

    def skip(self, task: Task) -> None:
        """Leave out a task that was done before: it says nothing about the time left."""
        self._number += 1
        self._total -= task.size
        if self._progress is not None:
            self._progress.total = self._total
