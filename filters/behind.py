"""The files behind filters: code of one's own, models, lists. What is kept depends on their bytes.

They are known by digest, so that work which was begun with others is not gone on with, and so that
no worker judges with others.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..durable import sha256_unchanged
from ..errors import RunError
from . import registry
from .assets import parts
from .expression import Prepared, filters_of
from .spec import FilterSpec


def files_behind(prepared: Sequence[Prepared]) -> dict[str, Path]:
    """Return the files behind filters that are there, by absolute path.

    The code of a filter from an installed package goes by the filter's name: it may lie elsewhere
    on another machine.
    """
    found: dict[str, Path] = {}
    for spec, made in filters_of(prepared):
        found |= _code_of(spec)
        for value in made.files().values():
            found |= {str(part): part for part in parts_of(Path(value).absolute())}
    return {name: path for name, path in found.items() if path.is_file()}


def digests_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by the same names."""
    return {name: sha256_unchanged(path) for name, path in files.items()}


def check_behind(prepared: Sequence[Prepared], expected: Mapping[str, str]) -> None:
    """Raise RunError, by machine and file, unless the files here are those of these digests."""
    found = digests_of(files_behind(prepared))
    for name in (name for name in {**expected, **found} if expected.get(name) != found.get(name)):
        raise RunError(
            f"{name}: {os.uname().nodename} has something else there than the command began with; "
            "give all machines the same, and run the same command again"
        )


def parts_of(path: Path) -> list[Path]:
    """Return the files that what a filter uses consists of."""
    # Of a run, its description names the checkpoint by digest.
    if (path / "info.json").is_file():
        return [path / "info.json"]
    return parts(path) if path.is_dir() else [path]


def _code_of(spec: FilterSpec) -> dict[str, Path]:
    """Return the file of a filter's class, unless it is one of datacomp's own."""
    if spec.use in registry.BUILT_IN:
        return {}
    if spec.is_file:
        path = Path(spec.use.rpartition(":")[0]).absolute()
        return {str(path): path}
    file = None
    with contextlib.suppress(TypeError):  # of a module that has no file
        file = inspect.getsourcefile(registry.get(spec.use))
    return {} if file is None else {f"filter {spec.use}": Path(file)}
