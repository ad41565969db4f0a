"""Say whose mistake it was: file and line of a filter, its decision, or its scorer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol, TypeVar

from ..errors import DatacompError, DataError, RunError, UsageError
from .contract import Filter, Scorer
from .registry import BUILT_IN, blame, defined_at, place_of
from .spec import FilterSpec

T = TypeVar("T")


class Named(Protocol):
    """What complaints name: a filter, or a group of them."""

    @property
    def use(self) -> str:
        """Its name."""
        ...


@contextlib.contextmanager
def blaming(spec: Named, made: Filter) -> Iterator[None]:
    """Name file and line of a plug-in that raises, or would end the process."""
    try:
        yield
    except DatacompError:
        raise
    except (Exception, SystemExit) as error:
        raise RunError(f"filter {spec.use} failed at {blame(error, made)}") from error


@contextlib.contextmanager
def blaming_scorer(spec: Named, scorer: Scorer) -> Iterator[None]:
    """Name the scorer whose values do not fit its type."""
    try:
        yield
    except (DataError, ValueError, TypeError, OverflowError) as error:
        raise RunError(
            f"filter {spec.use}: scorer {scorer.name} ({defined_at(scorer)}) gives what is no "
            f"{scorer.type}: {' '.join(str(error).split())[:300]}"
        ) from error


@contextlib.contextmanager
def blaming_decision(spec: Named, reason: str) -> Iterator[None]:
    """Name the decision whose SQL cannot be run, and where a filter of one's own is defined."""
    try:
        yield
    except (DataError, UsageError) as error:
        said = str(error).partition(" LINE 1:")[0]  # what follows is SQL made here
        raise UsageError(f"filter {spec.use}{_own_place(spec)}: {reason}: {said}") from None


def _own_place(spec: Named) -> str:
    """Return where a filter of one's own is defined, in parentheses; of others nothing."""
    if isinstance(spec, FilterSpec) and spec.use not in BUILT_IN:
        with contextlib.suppress(UsageError):
            return f" ({place_of(spec.use)})"
    return ""


def all_of(kind: type[T], items: list[T]) -> list[T]:
    """Return the items, or raise TypeError for what a plug-in should not have returned."""
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"expected a list of {kind.__name__}, found {item!r}")
    return list(items)
