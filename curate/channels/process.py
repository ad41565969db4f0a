"""Commands of datacomp as processes of their own, timed by the kernel and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ...errors import RunError

STOP_SECONDS = 15.0
TICK = 0.005
MAX_OUTPUT = 1 << 24
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class Process:
    """A running command; a context manager at whose end the process is gone.

    ``cpu`` is its CPU time in seconds, user and system, since ``mark`` was called (since its start
    where it was not, or where the machine has no ``/proc``).
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.name = arguments[0]
        self.code: int | None = None
        self.cpu = 0.0
        self._marked = 0.0
        self._output, self._errors = log.with_suffix(".out"), log.with_suffix(".err")
        env = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.child", *arguments],
                stdin=subprocess.PIPE, stdout=output, stderr=errors, env=env,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end(signal.SIGTERM if exc_info[0] is None else signal.SIGKILL)

    def first_line(self, seconds: float) -> str:
        """Wait until the command has printed a line, and return it. Raises RunError."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            line, newline, _ = self.output().partition("\n")
            if newline:
                return line
            if self.ended():
                break
            time.sleep(TICK)
        raise RunError(f"datacomp {self.name} did not start: {self.complaint() or 'no answer'}")

    def output(self) -> str:
        """Return what the command has printed, to a limit."""
        with self._output.open("rb") as file:
            return file.read(MAX_OUTPUT).decode("utf-8", "replace")

    def complaint(self) -> str:
        """Return the last line that the command told as an error."""
        with self._errors.open("rb") as file:
            lines = file.read(MAX_OUTPUT).decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def mark(self) -> None:
        """Count CPU time from now on."""
        try:
            found = Path(f"/proc/{self._popen.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        self._marked = (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self) -> bool:
        """Return whether the process has ended, and note what it used."""
        if self.code is None:
            pid, status, used = os.wait4(self._popen.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.cpu = max(used.ru_utime + used.ru_stime - self._marked, 0.0)
                self._popen.returncode = self.code
                if self._popen.stdin is not None:
                    self._popen.stdin.close()
        return self.code is not None

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process with a signal, after some seconds by force."""
        until = time.monotonic() + STOP_SECONDS
        if not self.ended():
            self._popen.send_signal(number)
        while not self.ended():
            if time.monotonic() > until:
                self._popen.kill()
            time.sleep(TICK)
