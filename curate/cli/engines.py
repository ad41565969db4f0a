"""The options that say who does a command's work: ``--workers``, ``--engine`` and ``--memory``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ...pools.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])


def engine_options(workers: str) -> Callable[[F], F]:
    """Add ``--workers`` (with this help) and the others; the command gets ``workers``, an Engine.

    It is closed when the command ends.
    """

    def add(function: F) -> F:
        @functools.wraps(function)
        def command(
            *args: Any, engine: str | None, workers: int | None, memory: str | None, **options: Any
        ) -> Any:
            opened = _opened(engine, workers, memory, True)
            return function(*args, workers=opened, **options)

        for option in (_memory_option, _engine_option,
                       click.option("--workers", type=click.IntRange(min=1), help=workers),
                       ):  # fmt: skip
            command = option(command)
        return command  # pyright: ignore[reportReturnType]

    return add


def engine_option(function: F) -> F:
    """Add ``--engine`` and ``--memory``; the command gets ``engine``, None for the local one."""

    @functools.wraps(function)
    def command(*args: Any, engine: str | None, memory: str | None, **options: Any) -> Any:
        return function(*args, engine=_opened(engine, None, memory, False), **options)

    return _engine_option(_memory_option(command))  # pyright: ignore[reportReturnType]


def choice_options(function: F) -> F:
    """Add ``--workers`` and the others; the command gets ``engine``, None unless one was chosen.

    Without one the command does its work in one process.
    """

    @functools.wraps(function)
    def command(
        *args: Any, engine: str | None, workers: int | None, memory: str | None, **options: Any
    ) -> Any:
        opened = _opened(engine, workers, memory, workers is not None)
        return function(*args, engine=opened, **options)

    workers = click.option("--workers", type=click.IntRange(min=1),
                           help="Work in partitions, so many at a time.")  # fmt: skip
    return workers(_engine_option(_memory_option(command)))  # pyright: ignore[reportReturnType]


def _opened(
    engine: str | None, workers: int | None, memory: str | None, local: bool
) -> Engine | None:
    """Return the engine that is meant, None for the local one unless that is wanted too.

    Databases in this process take no more memory than a worker's, until the command ends.
    """
    from ...pools.parallel import memory_limited
    from ..engine import EngineChoice, open_engine

    choice, context = EngineChoice.parse(engine, workers, memory), click.get_current_context()
    context.with_resource(memory_limited(memory))
    if choice.kind == "local" and not local:
        return None
    return context.with_resource(open_engine(choice))


_memory_option = click.option(
    "--memory", metavar="SIZE",
    help="Most memory of each worker and its database, such as 4GB or 25% "
    "[default: DATACOMP_MEMORY].",
)  # fmt: skip
_engine_option = click.option(
    "--engine", metavar="ENGINE",
    help="Who works: local, ray (the cluster of this machine), ray:HOST:PORT or ray:local "
    "[default: DATACOMP_ENGINE, else local].",
)  # fmt: skip
