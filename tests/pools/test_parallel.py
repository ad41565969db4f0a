"""Work over threads: in order, a little ahead, the first error raised."""

import os
import threading

import pytest
from datacomp.pools.parallel import (
    MEMORY_VARIABLE,
    default_workers,
    map_threads,
    memory_limited,
)


def test_default_workers_is_what_this_process_may_use():
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_come_in_order(workers):
    assert list(map_threads(abs, range(-20, 0), workers)) == list(range(20, 0, -1))
    assert list(map_threads(abs, [], workers)) == []


def test_one_worker_is_this_thread():
    here = threading.current_thread()
    assert list(map_threads(lambda _: threading.current_thread(), [1, 2], 1)) == [here] * 2
    assert here not in map_threads(lambda _: threading.current_thread(), [1, 2], 2)


def test_tasks_are_drawn_only_a_little_ahead():
    drawn = []
    tasks = (drawn.append(n) or n for n in range(100))
    results = map_threads(abs, tasks, 2)
    next(results)
    assert len(drawn) <= 3
    results.close()


def test_the_first_error_is_the_one_raised():
    results = map_threads(int, ["1", "x", "y"], 2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_memory_is_limited_for_a_while(monkeypatch):
    monkeypatch.setenv(MEMORY_VARIABLE, "3GB")
    with memory_limited(None):
        assert os.environ[MEMORY_VARIABLE] == "3GB"
    with memory_limited("1GB"):
        assert os.environ[MEMORY_VARIABLE] == "1GB"
    assert os.environ[MEMORY_VARIABLE] == "3GB"
    monkeypatch.delenv(MEMORY_VARIABLE)
    with memory_limited("1GB"):
        assert os.environ[MEMORY_VARIABLE] == "1GB"
    assert MEMORY_VARIABLE not in os.environ
