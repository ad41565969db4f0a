"""What filters need beyond the base installation, missed before the work begins."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import MissingError
from .contract import Filter
from .expression import Prepared


def check_needs(prepared: Sequence[Prepared]) -> None:
    """Raise MissingError if a module is not installed that one of the filters needs."""
    for one in prepared:
        check_needs(one.members)
        if one.made is not None:
            check_modules(one.node.use, one.made)


def check_modules(use: str, made: Filter) -> None:
    """Raise MissingError, with the line that installs it, for a module that a filter lacks."""
    for module, extra in made.needs.items():
        if importlib.util.find_spec(module) is None:
            raise MissingError(
                f"filter {use} needs {module}, which is not installed: pip install -e '.[{extra}]'"
            )
