"""What runs in a Ray worker: one function on one partition."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ... import __version__
from ...durable import name_attempt
from ...errors import RunError
from ...pools.allocation import keep_freed_memory
from ...pools.connection import MEMORY_VARIABLE
from ...progress import tell_through

_OWN_LIMIT = os.environ.get(MEMORY_VARIABLE)
"""What this machine's user says, before a job does."""


@dataclass(frozen=True)
class Job:
    """A function for many partitions, and what its workers are held to."""

    function: Callable[[Any], Any]
    version: str
    limit: str | None
    """What the database in a worker may take, such as ``2GB``; None is for the machine to say."""
    share: str
    """The same where nothing is said."""
    folder: str
    """The working directory of the driver, which relative paths are relative to."""

    @classmethod
    def of(cls, function: Callable[[Any], Any], limit: str | None, share: str) -> Job:
        """Return the job of a function that is called here."""
        return cls(function, __version__, limit, share, os.getcwd())


@dataclass
class Done:
    """A result, and the warnings that came with it."""

    value: Any
    warnings: list[str] = field(default_factory=list)


def work(job: Job, partition: Any) -> Done:
    """Do the work of one partition.

    It may run twice at the same time, where a machine was taken for dead: then each writes under
    names of its own, and either result is the result.
    """
    if job.version != __version__:  # of a machine that joined after the others were asked
        raise RunError(
            f"{os.uname().nodename} has datacomp {__version__}, but the work is of {job.version}; "
            "install the same version on every machine"
        )
    done = Done(None)

    def tell(kind: str, value: Any) -> None:
        if kind == "warning":
            done.warnings.append(value)

    with contextlib.suppress(OSError):  # a machine that has no such folder is told by reach()
        os.chdir(job.folder)
    keep_freed_memory()
    os.environ[MEMORY_VARIABLE] = job.limit or _OWN_LIMIT or job.share
    tell_through(tell)
    name_attempt(f"{zlib.crc32(os.uname().nodename.encode()):08x}-{os.getpid()}")
    done.value = job.function(partition)
    return done
