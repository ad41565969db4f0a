"""Progress for people: rate and time left on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays for results.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_REDRAW_SECONDS = 0.1
_PLAIN_LINE_SECONDS = 10.0
_QUIET_BEFORE_SECONDS = 1.0


class _Settings:
    """How much is said: -1 quiet, 0 normal, 1 verbose."""

    verbosity = 0


def set_verbosity(level: int) -> None:
    """Set how much is said from now on: -1 quiet, 0 normal, 1 verbose."""
    _Settings.verbosity = level


def say(message: str, level: int = 0) -> None:
    """Print a line to standard error unless the verbosity is below ``level``."""
    if _Settings.verbosity >= level:
        print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a warning line to standard error, whatever the verbosity."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def status(text: str) -> None:
    """Replace the terminal's current line on standard error, unless quiet."""
    if _Settings.verbosity >= 0:
        width = shutil.get_terminal_size((100, 24)).columns - 1
        print(f"\r\033[K{text[:width]}", end="", file=sys.stderr, flush=True)


class Progress:
    """Counts work done; a context manager that draws itself when the work takes over a second."""

    def __init__(self, label: str, total: int | None = None, unit: str = "samples") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._start = self._last = time.monotonic()
        self._drawn = False
        self._tty = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._drawn and exc_info[0] is None:
            self._draw(final=True)
        if self._drawn and self._tty:
            print(file=sys.stderr)

    def advance(self, amount: int = 1) -> None:
        """Record that ``amount`` more units are done."""
        self.done += amount
        now = time.monotonic()
        wait = _REDRAW_SECONDS if self._tty else _PLAIN_LINE_SECONDS
        if now - self._last >= wait and now - self._start >= _QUIET_BEFORE_SECONDS:
            self._last = now
            self._draw()

    def _draw(self, final: bool = False) -> None:
        if _Settings.verbosity < 0:
            return
        self._drawn = True
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / elapsed
        text = f"{self.label}: {self.done:,}"
        if self.total:
            text += f" of {self.total:,}"
        text += f" {self.unit}, {rate:,.{0 if rate >= 10 else 1}f}/s"
        if final:
            text += f", {duration(elapsed)}"
        elif self.total and rate > 0:
            text += f", {duration(max(self.total - self.done, 0) / rate)} left"
        if self._tty:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


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
