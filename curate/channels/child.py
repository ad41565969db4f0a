"""A command of datacomp in a process that ends with whoever started it.

Its standard input is a pipe whose other end only the comparison holds: it closes when the
comparison ends, however that happens. This module imports little, for nothing is tied before.
"""

from __future__ import annotations

import os
import threading


def main() -> None:
    """Run the command line, tied to the starter."""
    threading.Thread(target=_follow, daemon=True).start()
    from ..cli import main as run

    run()


def _follow() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
