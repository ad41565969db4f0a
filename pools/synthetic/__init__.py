"""Images by formula: data sets for pre-training that need no camera and no crawl.

Each kind is a frozen dataclass (:mod:`~datacomp.pools.synthetic.contract`) that finds classes
and draws any image of them; :mod:`~datacomp.pools.synthetic.build` writes whole data sets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ...errors import UsageError, suggest

if TYPE_CHECKING:
    from .contract import Generator

KINDS = {
    "visualatom": "visualatom:VisualAtom",
    "rcdb": "rcdb:RCDB",
    "fractaldb": "fractaldb:FractalDB",
    "exfractaldb": "exfractaldb:ExFractalDB",
}

__all__ = ["KINDS", "generator_class"]


def generator_class(kind: str) -> type[Generator]:
    """Return the class of a kind of generator."""
    if kind not in KINDS:
        raise UsageError(
            f"unknown kind of generator {kind!r}{suggest(kind, list(KINDS))}; "
            f"there are: {', '.join(KINDS)}"
        )
    module, name = KINDS[kind].split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)
