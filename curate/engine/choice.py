"""What a user says about the engine, and the engine that is meant by it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ...errors import UsageError, suggest
from ...pools.engine import Engine, Local
from ...pools.parallel import MEMORY_VARIABLE

ENGINE_VARIABLE = "DATACOMP_ENGINE"
KINDS = ("local", "ray")
AUTO, HERE = "auto", "local"
"""Addresses: the cluster that this machine belongs to, and one of this machine alone."""

ADDRESS = r"auto|local|[A-Za-z0-9._-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}"
SIZE = r"([1-9]\d*(?:\.\d+)?|0\.\d*[1-9]\d*) ?([KMGT])(i?)B"


@dataclass(frozen=True)
class EngineChoice:
    """``kind`` is local or ray, ``address`` that of the cluster (auto, local or HOST:PORT).

    ``workers`` is how many work at the same time (None: as the engine thinks fit), ``memory``
    what a worker may take, such as ``4GB`` (None: what DATACOMP_MEMORY says, if it says anything);
    a share such as ``25%`` of its machine bounds only the worker's database.
    """

    kind: str = "local"
    address: str = AUTO
    workers: int | None = None
    memory: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                f"engine {self.kind!r} is not known{suggest(self.kind, list(KINDS))}; expected "
                "local, ray, or ray:ADDRESS"
            )
        if not re.fullmatch(ADDRESS, self.address):
            hint = (
                "; a driver runs on a machine of the cluster, so give HOST:PORT of its head"
                if self.address.startswith("ray://")
                else ""
            )
            raise UsageError(
                f"the address of the Ray cluster is {self.address!r}, expected auto, local or "
                f"HOST:PORT{hint}"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}, expected at least 1")
        if self.memory is not None and not is_share(self.memory):
            bytes_of(self.memory)

    @classmethod
    def parse(
        cls, text: str | None, workers: int | None = None, memory: str | None = None
    ) -> EngineChoice:
        """Read ``local``, ``ray`` or ``ray:ADDRESS``; None is what DATACOMP_ENGINE says, or local.

        >>> EngineChoice.parse("ray:10.0.0.1:6379").address
        '10.0.0.1:6379'
        """
        text = text or os.environ.get(ENGINE_VARIABLE) or "local"
        kind, found, address = text.partition(":")
        if kind == "local" and found:
            raise UsageError(f"engine {text!r}: the local engine has no address")
        return cls(kind, address if found else AUTO, workers, memory)


LOCAL = EngineChoice()


def open_engine(choice: EngineChoice = LOCAL) -> Engine:
    """Return the engine chosen, to be closed in the end.

    Raises MissingError for a cluster that is not there or the extra that is not installed, and
    RunError for machines of it that cannot work for this one, by name.
    """
    if choice.kind == "local":
        return Local(choice.workers, choice.memory)
    from .cluster import RayEngine

    memory = choice.memory or os.environ.get(MEMORY_VARIABLE)
    if memory and is_share(memory):  # of each machine, so there are no bytes to ask Ray for
        return RayEngine(choice.address, choice.workers, limit=memory)
    return RayEngine(choice.address, choice.workers, None if not memory else bytes_of(memory))


def is_share(memory: str) -> bool:
    """Tell whether a memory is a share of a machine's, such as ``25%``."""
    return re.fullmatch(r"[1-9]\d*(\.\d+)? ?%", memory) is not None


def bytes_of(size: str) -> int:
    """Return a size such as ``2GB`` or ``512MiB`` in bytes."""
    found = re.fullmatch(SIZE, size)
    if found is None:
        raise UsageError(
            f"the memory of a worker is {size!r}, expected a size such as 2GB or a "
            "share such as 25%"
        )
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** ("KMGT".index(found[2]) + 1))
