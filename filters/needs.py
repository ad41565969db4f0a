"""What filters need beyond the base installation, missed before the work begins."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import MissingError
from ..pools.engine import Engine
from .contract import Filter
from .expression import Prepared, filters_of


def check_needs(prepared: Sequence[Prepared]) -> None:
    """Raise MissingError if a module is not installed that one of the filters needs."""
    for spec, made in filters_of(prepared):
        check_modules(spec.use, made)


def require_needs(engine: Engine, prepared: Sequence[Prepared]) -> None:
    """Raise MissingError, by machine, for a module that one of the filters needs of a worker."""
    extras: dict[str, set[str]] = {}
    for _, made in filters_of(prepared):
        for module, extra in made.needs.items():
            extras.setdefault(extra, set()).add(module)
    for extra, modules in sorted(extras.items()):
        engine.require(extra, *sorted(modules))


def check_modules(use: str, made: Filter) -> None:
    """Raise MissingError, with the line that installs it, for a module that a filter lacks."""
    for module, extra in made.needs.items():
        if importlib.util.find_spec(module) is None:
            raise MissingError(
                f"filter {use} needs {module}, which is not installed: pip install -e '.[{extra}]'"
            )
