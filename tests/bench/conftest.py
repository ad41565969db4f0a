"""Paired benchmarks: ours against a peer or a physical limit, in turn, in one run.

Each prints the medians and the ratio pair by pair, so that a comparison holds when the
machine's speed drifts. They assert that both did the same work, never how long it took.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def _disk_is_not_waited_for():
    """Wait for the disk, as users do."""


@pytest.fixture
def paired(capsys) -> Callable[..., None]:
    def paired(
        title: str,
        ours: Callable[[], Any],
        other: Callable[[], Any],
        *,
        against: str,
        rounds: int = 5,
        before: Callable[[], Any] = lambda: None,
    ) -> None:
        """Time them in turn; what is done ``before`` each is not timed."""
        for run in (ours, other):  # warm caches
            before()
            run()
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            pair = []
            for run in (ours, other):
                before()
                started = time.perf_counter()
                run()
                pair.append(time.perf_counter() - started)
            times.append((pair[0], pair[1]))
        mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(b / a for a, b in times)
        with capsys.disabled():
            print(
                f"\n{title}: ours {mine:.3f} s, {against} {theirs:.3f} s, "
                f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )

    return paired


@pytest.fixture
def steady_rate():
    """Return a maker of rates: what a process makes in a second, its start left out.

    ``run(count)`` runs a whole process that makes ``count``; the rate is that of the difference
    between many and few.
    """

    def steady_rate(run, few, many):
        times = []
        for count in (few, many):
            started = time.perf_counter()
            run(count)
            times.append(time.perf_counter() - started)
        return (many - few) / (times[1] - times[0])

    return steady_rate


@pytest.fixture
def timed() -> Callable[[list[str], Path], tuple[float, float, float]]:
    def timed(command: list[str], log: Path) -> tuple[float, float, float]:
        """Run a command; return wall and CPU seconds, and megabytes."""
        os.sync()  # what the one before left to write is not for this one to wait for
        started = time.perf_counter()
        with log.open("wb") as file:
            actions = [
                (os.POSIX_SPAWN_DUP2, file.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, file.fileno(), 2),
            ]
            child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
            _, status, used = os.wait4(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, log.read_text(errors="replace")[-2000:]
        wall = time.perf_counter() - started
        return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024

    return timed
