"""Work over processes: in order, bounded, loud when a worker dies, gone with the parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from datacomp.errors import RunError
from datacomp.pools.processes import map_ordered


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(map_ordered(abs, range(-20, 0), workers)) == list(range(20, 0, -1))
    assert list(map_ordered(abs, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_the_one_raised(workers):
    results = map_ordered(int, ["1", "x", "y"], workers)
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_tasks_are_drawn_only_a_little_ahead():
    drawn = []
    tasks = (drawn.append(n) or n for n in range(100))
    results = map_ordered(abs, tasks, 2)
    next(results)
    assert len(drawn) <= 4
    results.close()


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(RunError) as caught:
        list(map_ordered(os._exit, [1], 2))
    assert str(caught.value) == (
        "a worker process was killed (out of memory?); run the same command again, "
        "perhaps with fewer --workers"
    )


def test_a_script_is_not_run_again_in_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from datacomp.pools.processes import map_ordered\n"
        "print('here', *map_ordered(abs, range(-3, 0), 2))\n"
        "import sys; print(sys.modules['__main__'].__file__)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"here 3 2 1\n{script}\n", "")


def test_a_function_of_a_guarded_script_is_found(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from datacomp.pools.processes import map_ordered\n"
        "def double(n): return 2 * n\n"
        "if __name__ == '__main__': print(*map_ordered(double, range(3), 2))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 2 4\n", "")


def test_workers_die_with_a_killed_parent():
    script = """
        import multiprocessing, time
        from datacomp.pools.processes import map_ordered

        def tasks():
            yield from (60, 60)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            yield 60

        list(map_ordered(time.sleep, tasks(), 2))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        workers = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(0.5)  # let them start
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
