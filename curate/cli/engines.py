"""The options that say who does a command's work: ``--workers`` and ``--engine``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def engine_options(workers: str) -> Callable[[F], F]:
    """Add ``--workers`` (with this help) and ``--engine``; the command gets ``workers``, an Engine.

    It is closed when the command ends.
    """

    def add(function: F) -> F:
        @functools.wraps(function)
        def command(*args: Any, engine: str | None, workers: int | None, **options: Any) -> Any:
            from ..engine import EngineChoice, open_engine

            opened = open_engine(EngineChoice.parse(engine, workers))
            click.get_current_context().with_resource(opened)
            return function(*args, workers=opened, **options)

        for option in (_engine_option, click.option("--workers", type=click.IntRange(min=1),
                                                    help=workers)):  # fmt: skip
            command = option(command)
        return command  # pyright: ignore[reportReturnType]

    return add


def engine_option(function: F) -> F:
    """Add ``--engine``; the command gets ``engine``, None unless one was chosen."""

    @functools.wraps(function)
    def command(*args: Any, engine: str | None, **options: Any) -> Any:
        from ..engine import EngineChoice, open_engine

        choice = EngineChoice.parse(engine)
        opened = None
        if choice.kind != "local":
            opened = click.get_current_context().with_resource(open_engine(choice))
        return function(*args, engine=opened, **options)

    return _engine_option(command)  # pyright: ignore[reportReturnType]


def choice_options(function: F) -> F:
    """Add ``--workers`` and ``--engine``; the command gets ``engine``, None unless one was chosen.

    Without one the command does its work in one process.
    """

    @functools.wraps(function)
    def command(*args: Any, engine: str | None, workers: int | None, **options: Any) -> Any:
        from ..engine import EngineChoice, open_engine

        choice = EngineChoice.parse(engine, workers)
        opened = None
        if choice.kind != "local" or workers is not None:
            opened = click.get_current_context().with_resource(open_engine(choice))
        return function(*args, engine=opened, **options)

    workers = click.option("--workers", type=click.IntRange(min=1),
                           help="Work in partitions, so many at a time.")  # fmt: skip
    return workers(_engine_option(command))  # pyright: ignore[reportReturnType]


_engine_option = click.option(
    "--engine", metavar="ENGINE",
    help="Who works: local, ray (the cluster of this machine), ray:HOST:PORT or ray:local "
    "[default: DATACOMP_ENGINE, else local].",
)  # fmt: skip
