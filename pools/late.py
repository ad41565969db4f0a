"""Modules that are imported when they are first used.

img2dataset imports all that any of its parts needs: webdataset and with it torch, and wandb. A
worker that only downloads and resizes uses neither, and they take most of the time it starts in.
open_clip imports timm, and that imports wandb.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


@contextlib.contextmanager
def late(*names: str) -> Iterator[None]:
    """Within, imports of these top-level modules are put off until one of their names is asked for.

    What is imported already stays as it is, and what is not installed is an ImportError as ever.
    """
    finder = _Late(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Late(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the names is, to be run later."""
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
