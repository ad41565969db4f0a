"""What is freed is kept: by workers, and by the process of the command line."""

import subprocess
import sys
import textwrap

import pytest

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
    "as it is": "print(faults())",
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
    "in the command line": """
    from datacomp.curate.cli import __main__ as command
    command.main = lambda: print(faults())
    command.start()
    """,
}


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of the GNU C library")
@pytest.mark.parametrize("how", HOW)
def test_blocks_come_from_the_system_once(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(BLOCKS) + textwrap.dedent(HOW[how]))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stderr == ""
    if how == "as it is":
        assert int(done.stdout) > 10_000
    else:
        assert int(done.stdout) < 1_000
