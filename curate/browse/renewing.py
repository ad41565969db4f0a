"""Make the index of a pool anew while its pages are served, after the pool has changed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

QUIET_SECONDS = 30.0
"""How long a pool must have stayed as it is: who is filling it should not find it held."""

_MAKE = (
    "import sys; from pathlib import Path; from datacomp.curate.browse.index import prepare; "
    "from datacomp.errors import DatacompError; from datacomp.progress import warn\n"
    "path, memory, threads, least = sys.argv[1:]\n"
    "try: prepare(Path(path), memory or None, int(threads) or None, int(least))\n"
    "except DatacompError as error: warn(f'no index is made anew: {error}')\n"
)


class Renewal:
    """One process at a time that makes the index: here the pool is open in another way."""

    def __init__(
        self, path: Path, memory_limit: str | None, threads: int | None, least: int,
        quiet: float = QUIET_SECONDS,
    ) -> None:  # fmt: skip
        self._path = path
        self._options = [memory_limit or "", str(threads or 0), str(least)]
        self._quiet = quiet
        self._process: subprocess.Popen[bytes] | None = None
        self._made_of: tuple[int, ...] = ()

    def start(self, mark: tuple[int, ...]) -> None:
        """Begin, unless that is being done or was for the pool that ``mark`` tells from others."""
        if self._process is not None and self._process.poll() is None:
            return
        with contextlib.suppress(OSError):
            if mark == self._made_of or time.time() - self._path.stat().st_mtime < self._quiet:
                return
            self._made_of = mark
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAKE, str(self._path.absolute()), *self._options],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def wait(self, seconds: float) -> None:
        """Wait until the process that is at work has ended."""
        if self._process is not None:
            self._process.wait(seconds)

    def close(self) -> None:
        """End what is being made."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
