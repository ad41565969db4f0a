"""What is freed is kept: by workers, and by the process of the command line."""

import ctypes
import os
import subprocess
import sys
import textwrap

import pytest

TUNING = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
BLOCKS = """
    import os, resource, sys
    import numpy as np

    def faults(_=None):
        some = [np.ones(1 << 15) for _ in range(8)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            some = None  # all of them are free at the same time
            some = [np.ones(1 << 15) for _ in range(8)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
"""Each block that comes from the system anew is 64 pages, each of which is a fault."""

HOW = {
    "kept": """
    from datacomp.pools.allocation import keep_freed_memory
    keep_freed_memory()
    print(faults())
    """,
    "in a worker": """
    if __name__ == "__main__":
        from datacomp.pools.processes import map_ordered
        print(*map_ordered(faults, [None], 2))
    """,
    "in a task of a study": """
    from multiprocessing import Pipe
    from datacomp.curate.workflow import scheduler

    if __name__ == "__main__":
        receiving, sending = Pipe(False)
        scheduler.tie_stage = lambda: None  # there is no parent
        scheduler._child(sending, lambda: {"faults": faults()}, (), os.devnull)
        print(receiving.recv()[1]["faults"])
    """,
    "in the command line": """
    from datacomp.curate.cli import __main__ as command
    command.main = lambda: print(faults())
    command.start()
    """,
}


AS_IT_IS = "print(faults())"


@pytest.fixture
def faults(tmp_path):
    """Return the faults that a script counts; skip where the system keeps blocks by itself."""

    def faults(how):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(BLOCKS) + textwrap.dedent(how))
        plain = {name: value for name, value in os.environ.items() if name not in TUNING}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=plain)
        assert done.stderr == ""
        return int(done.stdout)

    if faults(AS_IT_IS) < 10_000:
        pytest.skip("blocks that are free are not given back to this system")
    return faults


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the GNU C library")
@pytest.mark.parametrize("how", HOW)
def test_blocks_come_from_the_system_once(how, faults):
    assert faults(HOW[how]) < 1_000
