"""DataComp's pools on the Hub: their metadata, and the features beside them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ...errors import UsageError, suggest
from .folder import Plan, plan
from .listing import RemoteFile, Repository

OWNER = "mlfoundations"
POOLS = {
    "small": "datacomp_small",
    "medium": "datacomp_medium",
    "large": "datacomp_large",
    "xlarge": "datacomp_xlarge",
    "datacomp_1b": "datacomp_1b",
}
METADATA = "metadata"
"""The folder that metadata are put into, as DataComp's own download does."""


def plan_pool(scale: str, folder: Path, features: bool = False, parts: int | None = None) -> Plan:
    """Plan to bring a pool's metadata to ``folder/metadata``; see :func:`plan` for the errors.

    With ``features`` come the ``.npz`` beside them. ``parts`` takes only so many of the files of
    metadata, the first by name; folders (``part_*``) stay as they are.
    """
    if scale not in POOLS:
        raise UsageError(
            f"unknown pool {scale!r}{suggest(scale, list(POOLS))}; there are: {', '.join(POOLS)}"
        )
    choose = functools.partial(choose_files, features=features, parts=parts)
    return plan(f"{OWNER}/{POOLS[scale]}", folder, choose, _place)


def choose_files(
    repository: Repository, features: bool = False, parts: int | None = None
) -> Sequence[RemoteFile]:
    """Return the files of metadata, each followed by its features if they are wanted."""
    by_path = {file.path: file for file in repository.files}
    metadata = [path for path in by_path if path.endswith(".parquet")][:parts]
    chosen: list[RemoteFile] = []
    for path in metadata:
        chosen.append(by_path[path])
        beside = by_path.get(path.removesuffix(".parquet") + ".npz")
        if features and beside is not None:
            chosen.append(beside)
    return chosen


def _place(file: RemoteFile) -> str:
    return f"{METADATA}/{file.path.removeprefix(METADATA + '/')}"
