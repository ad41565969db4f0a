"""The process of the command line: ``datacomp``, and ``python -m datacomp.curate.cli``."""

import atexit
import gc
import os
import sys

from ...pools.allocation import keep_freed_memory
from . import main

_ENVIRONMENT = {
    # Pydantic would look through all installed packages for plugins of its own.
    "PYDANTIC_DISABLE_PLUGINS": "1",
    # Idle threads of OpenBLAS, which numpy loads, would spin for 0.1 s before they sleep, while
    # others have work for the processor; 2^16 cycles are enough.
    "OPENBLAS_THREAD_TIMEOUT": "16",
}
"""What libraries are told before they are loaded, here and in the processes that this one starts,
where the user does not tell them."""

_ALLOCATIONS = 100_000
"""So many objects more than before are looked through for garbage; Python's own rule is 700. What
is imported stays, and what a command makes is freed as it goes: to look through it again and again
takes a tenth of the time of a short command, which makes fewer than these."""


def start() -> None:
    """Run the command line and let the process end with it.

    What a command holds is closed by then, and the system takes memory back faster than the
    interpreter does, which goes through it object by object: a twentieth of a short command.
    """
    code: int | None = None

    def leave() -> None:
        if code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed before we began
                    stream.flush()
        except (OSError, ValueError):
            return  # the interpreter says what it says of that
        os._exit(code)

    gc.set_threshold(_ALLOCATIONS)
    keep_freed_memory()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    atexit.register(leave)  # before all others, so that it comes after them
    try:
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else None
        raise


if __name__ == "__main__":
    start()
