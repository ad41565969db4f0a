"""How far the running stages are, and how long the whole will still take.

The time left is found by playing the rest of the schedule through: which task could start when,
given what it needs and how many may run at once. How long a task takes is known from tasks of
the same pace that have ended, from how far a running one is with its known amount of work, or
from an earlier run of the very same task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...progress import Update, duration, how_far

_MEASURED_SECONDS = 2.0
"""A rate measured over less is not trusted."""


class Planned(Protocol):
    """What must be known of a task to foresee its time."""

    key: str
    stage: str
    label: str
    pace: str
    amount: int | None
    unit: str
    needs: tuple[str, ...]
    exclusive: str | None


@dataclass
class Watch:
    """Follows one running task; all times are those of one monotonic clock."""

    task: Planned
    started: float
    now: Update | None = None
    _phase: tuple[float, int] = (0.0, 0)
    _first: tuple[float, int] | None = None
    _ended: int = 0
    """How much of its known amount of work the task did in phases that have ended."""

    def note(self, update: Update, at: float) -> None:
        """Take in what the task says of itself."""
        if self.now is None or update.label != self.now.label or update.done < self.now.done:
            self._ended += self._counted(self.now)
            self._phase = (at, update.done)
        self.now = update
        if self._first is None and update.unit == self.task.unit:
            self._first = (at, update.done)

    def _counted(self, update: Update | None) -> int:
        return update.done if update is not None and update.unit == self.task.unit else 0

    def text(self, at: float) -> str:
        """Say in one line what the task does and how far it is."""
        elapsed = duration(at - self.started)
        if self.now is None:
            return f"{self.task.label}: {elapsed}"
        rate = _rate(self._phase, at, self.now.done)
        text = f"{self.task.label}: {how_far(self.now, rate)}"
        if rate and self.now.total:
            text += f", {duration(max(self.now.total - self.now.done, 0) / rate)} left"
        return text

    def expected(self, at: float) -> float | None:
        """Return the seconds the task will have taken, from its known amount of work."""
        if self._first is None or self.task.amount is None:
            return None
        done = self._ended + self._counted(self.now)
        rate = _rate(self._first, at, done)
        if not rate:
            return None
        return at - self.started + max(self.task.amount - done, 0) / rate


def _rate(since: tuple[float, int], at: float, done: int) -> float | None:
    seconds, amount = at - since[0], done - since[1]
    return amount / seconds if seconds >= _MEASURED_SECONDS and amount > 0 else None


@dataclass
class Outlook:
    """What is known of how long tasks take."""

    parallel: int
    remembered: dict[str, float] = field(default_factory=dict)
    """Seconds by key of task, of earlier runs."""
    taken: dict[str, list[float]] = field(default_factory=dict)
    """Seconds by pace of the tasks that ended in this run."""

    def left(
        self, waiting: Sequence[Planned], watches: Sequence[Watch], at: float
    ) -> tuple[float, list[str]]:
        """Return the seconds to the end, and the stages whose time nobody knows yet."""
        measured = {pace: list(found) for pace, found in self.taken.items()}
        for watch in watches:
            expected = watch.expected(at)
            if expected is not None:
                measured.setdefault(watch.task.pace, []).append(expected)
        means = {pace: sum(found) / len(found) for pace, found in measured.items()}
        unknown: dict[str, None] = {}

        def whole(task: Planned) -> float:
            seconds = means.get(task.pace, self.remembered.get(task.key))
            if seconds is None:
                unknown[task.stage] = None
            return seconds or 0.0

        ends: dict[str, float] = {}
        for watch in watches:
            seconds = watch.expected(at)
            seconds = whole(watch.task) if seconds is None else seconds
            ends[watch.task.key] = max(seconds - (at - watch.started), 0.0)
        held = {watch.task.key: watch.task.exclusive for watch in watches}
        lengths = {task.key: whole(task) for task in waiting}
        return _play(waiting, lengths, ends, held, self.parallel), list(unknown)

    def text(self, waiting: Sequence[Planned], watches: Sequence[Watch], at: float) -> str:
        """Say how long the whole will still take, as far as that is known."""
        seconds, unknown = self.left(waiting, watches, at)
        if not unknown:
            return f"about {duration(seconds)} left"
        if not seconds:
            return "time left not known yet"
        return f"at least {duration(seconds)} left ({', '.join(unknown)} not measured yet)"


def _play(
    waiting: Sequence[Planned],
    lengths: dict[str, float],
    running: dict[str, float],
    held: dict[str, str | None],
    parallel: int,
) -> float:
    """Return when the last task ends, in seconds from now; ``running`` holds when those end."""
    ends, left, clock = dict(running), list(waiting), 0.0
    held = dict(held)
    while left or ends:
        unfinished = {task.key for task in left} | set(ends)
        for task in list(left):
            if _may_start(task, unfinished, ends, held, parallel):
                ends[task.key], held[task.key] = clock + lengths[task.key], task.exclusive
                left.remove(task)
        if not ends:
            break  # the rest waits for what will not come
        key = min(ends, key=lambda name: ends[name])
        clock = max(clock, ends.pop(key))
        del held[key]
    return clock


def _may_start(
    task: Planned,
    unfinished: Collection[str],
    ends: dict[str, float],
    held: dict[str, str | None],
    parallel: int,
) -> bool:
    free = task.exclusive is None or task.exclusive not in held.values()
    return free and len(ends) < parallel and not set(task.needs) & set(unfinished)
