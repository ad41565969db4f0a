"""No stage outlives the study: an orphan would go on writing files that nobody holds any more.

A study that is killed cannot stop what it started, so what it started watches it: the kernel
ends a fork server with its parent, and a stage holds the reading end of a pipe whose writing end
only the study has. This module imports little, because nothing is tied before it is imported.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading

PARENT = "DATACOMP_STUDY"
"""Environment variable that tells a fork server the process that started it."""

_PR_SET_PDEATHSIG = 1


def tie_fork_server() -> None:
    """End this fork server with the study that started it, or now if the study is gone.

    By itself it would import everything first, and start what was asked for before.
    """
    parent = os.environ.pop(PARENT, None)
    _die_with_parent()
    if parent is not None and os.getppid() != int(parent):
        os._exit(1)


def tie_stage() -> None:
    """End this stage's process with the study, or now if the study is gone."""
    _die_with_parent()
    study = multiprocessing.parent_process()
    assert study is not None
    if multiprocessing.connection.wait([study.sentinel], timeout=0):
        os._exit(1)
    threading.Thread(target=_follow, args=(study.sentinel,), daemon=True).start()


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, where the kernel can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _follow(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
