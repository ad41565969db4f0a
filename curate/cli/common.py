"""What the commands share: options, output for people and for machines, examples in help."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ...errors import UsageError
from ...pools.ranges import is_remote

SET_ASIDE = 3
"""Exit code of a command that finished, but set samples aside."""

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


class Place(click.ParamType):
    """A path, or the URL of an object store; a path keeps no second slash, which a URL needs."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path | str:
        """Return a path, or the URL as it stands."""
        del param, ctx
        return value if isinstance(value, Path) or is_remote(value) else Path(value)


PLACE = Place()


class LocalPath(click.Path):
    """A path on file systems; the URL of an object store is refused, not taken for a folder."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a path."""
        if isinstance(value, str) and is_remote(value):
            self.fail(f"{value} is in an object store, but must be on a file system", param, ctx)
        return super().convert(value, param, ctx)


def keep_local(parameter: click.Parameter) -> None:
    """Let a parameter that is a path refuse URLs."""
    kind = parameter.type
    if isinstance(kind, click.Path) and kind.type is Path:
        parameter.type = LocalPath(
            exists=kind.exists, file_okay=kind.file_okay, dir_okay=kind.dir_okay,
            writable=kind.writable, readable=kind.readable, resolve_path=kind.resolve_path,
            allow_dash=kind.allow_dash, path_type=kind.type, executable=kind.executable,
        )  # fmt: skip


def examples(*lines: str) -> str:
    """Return the epilog of a command: its examples, one a line."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 sample``, ``1,200 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def emit_json(value: Any) -> None:
    """Print a value as one JSON document, with null for what JSON has no number for."""
    click.echo(
        json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def emit_table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print rows in aligned columns, numbers to the right."""
    cells = [[str(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(header)]
    numeric = [
        all(isinstance(row[i], int | float) or row[i] in ("", "-") for row in rows)
        for i in range(len(header))
    ]
    for line in [list(header), ["-" * width for width in widths], *cells]:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` options into values: numbers and booleans are recognised."""
    from ...filters.spec import parse_value

    options: dict[str, Any] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found or not name:
            raise UsageError(f"--option {pair!r}: expected NAME=VALUE")
        options[name.strip()] = parse_value(value.strip())
    return options
