"""Progress for people: rate and time left on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays for results. A process that
works for another one hands all of it on instead (``tell_through``), so that one process draws.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_REDRAW_SECONDS = 0.1
_PLAIN_LINE_SECONDS = 10.0
_QUIET_BEFORE_SECONDS = 1.0
_MEASURED_SECONDS = 3.0
_MEASURED_STEPS = 3
"""A rate measured over less says more of the start than of the work."""
_STANDS_STILL_SECONDS = 5.0
"""After so long without progress, no rate says when the work ends."""
_TELL_SECONDS = 0.5
_BOARD_SECONDS = 0.5
_PLAIN_BOARD_SECONDS = 15.0

Teller = Callable[[str, Any], None]

_held: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("_held", default=None)


class _Settings:
    """How much is said (-1 quiet, 0 normal, 1 verbose), and through whom if not printed here."""

    verbosity = 0
    teller: Teller | None = None
    process = 0


@dataclass(frozen=True)
class Update:
    """How far a piece of work of another process is."""

    label: str
    done: int
    total: int | None
    unit: str


def set_verbosity(level: int) -> None:
    """Set how much is said from now on: -1 quiet, 0 normal, 1 verbose."""
    _Settings.verbosity = level


def tell_through(teller: Teller | None) -> None:
    """Hand what this process would print to ``teller(kind, value)`` from now on.

    Kinds are ``progress`` (an Update), ``say`` (level, text) and ``warning`` (a text). A fork of
    this process prints for itself again: two processes cannot share one pipe.
    """
    _Settings.teller, _Settings.process = teller, os.getpid()


def _teller() -> Teller | None:
    return _Settings.teller if _Settings.process == os.getpid() else None


def say(message: str, level: int = 0) -> None:
    """Print a line to standard error unless the verbosity is below ``level``."""
    teller = _teller()
    if teller is not None:
        teller("say", (level, message))
    elif _Settings.verbosity >= level:
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_held() -> Iterator[list[str]]:
    """Collect what this thread warns of in the block, for another one to ``warn`` of."""
    held: list[str] = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


def warn(message: str) -> None:
    """Print a warning line to standard error, whatever the verbosity."""
    held, teller = _held.get(), _teller()
    if held is not None:
        held.append(message)
    elif teller is not None:
        teller("warning", message)
    else:
        print(f"warning: {message}", file=sys.stderr, flush=True)


class Progress:
    """Counts work done; a context manager that draws itself when the work takes over a second."""

    def __init__(self, label: str, total: int | None = None, unit: str = "samples") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self._before = self._steps = 0
        self._start = self._last = self._moved = time.monotonic()
        self._drawn = False
        self._tty = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._tell()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._tell()
        if self._drawn and exc_info[0] is None:
            self._draw(final=True)
        if self._drawn and self._tty:
            print(file=sys.stderr)

    def resume(self, done: int) -> None:
        """Begin at ``done``: what an earlier attempt did counts, but not for the rate."""
        self.done = self._before = done

    def advance(self, amount: int = 1) -> None:
        """Record that ``amount`` more units are done."""
        self.done += amount
        self._steps += 1
        now = time.monotonic()
        if amount:
            self._moved = now
        if _teller() is not None:
            if now - self._last >= _TELL_SECONDS:
                self._last = now
                self._tell()
            return
        wait = _REDRAW_SECONDS if self._tty else _PLAIN_LINE_SECONDS
        if now - self._last >= wait and now - self._start >= _QUIET_BEFORE_SECONDS:
            self._last = now
            self._draw()

    def _tell(self) -> None:
        teller = _teller()
        if teller is not None:
            teller("progress", Update(self.label, self.done, self.total, self.unit))

    def _draw(self, final: bool = False) -> None:
        if _Settings.verbosity < 0:
            return
        self._drawn = True
        elapsed = max(time.monotonic() - self._start, 1e-9)
        measured = elapsed >= _MEASURED_SECONDS and self._steps >= _MEASURED_STEPS
        rate = (self.done - self._before) / elapsed if measured or final else None
        text = how_far(Update(self.label, self.done, self.total, self.unit), rate)
        if final:
            text += f", {duration(elapsed)}"
        elif self.total and rate and time.monotonic() - self._moved < _STANDS_STILL_SECONDS:
            text += f", {duration(max(self.total - self.done, 0) / rate)} left"
        if self._tty:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


class Board:
    """Several lines that stay up to date: redrawn in place on a terminal, repeated elsewhere."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._drawn = 0
        self._last = time.monotonic()

    def due(self) -> bool:
        """Tell whether it is time to draw again; never when quiet."""
        wait = _BOARD_SECONDS if self._tty else _PLAIN_BOARD_SECONDS
        return _Settings.verbosity >= 0 and time.monotonic() - self._last >= wait

    def draw(self, lines: list[str]) -> None:
        """Show the lines in place of those shown before."""
        self._last = time.monotonic()
        if self._tty:
            self.clear()
            width = shutil.get_terminal_size((100, 24)).columns - 1
            lines = [line[:width] for line in lines]
            self._drawn = len(lines)
        print("\n".join(lines), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for lasting lines."""
        if self._drawn:
            print(f"\033[{self._drawn}A\r\033[J", end="", file=sys.stderr, flush=True)
            self._drawn = 0


def how_far(update: Update, rate: float | None = None) -> str:
    """Write ``training: 1,280 of 40,960 samples, 310/s``."""
    text = f"{update.label}: {update.done:,}"
    if update.total:
        text += f" of {update.total:,}"
    text += f" {update.unit}"
    return text if rate is None else f"{text}, {rate:,.{0 if rate >= 10 else 1}f}/s"


def track(
    items: Iterable[T], label: str, total: int | None = None, unit: str = "samples"
) -> Iterator[T]:
    """Yield ``items`` while drawing progress."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """Write a number of seconds as a person would: ``0.4 s``, ``38 s``, ``2 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
