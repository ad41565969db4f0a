"""What kind of source lies at a path, judged by the files there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import MissingError, UsageError
from ..footers import read_schema
from ..images import EXTENSIONS

_MOST_FILES = 10_000
"""A folder is judged by this many files at most."""

_BY_EXTENSION = {
    "tar": "webdataset",
    **dict.fromkeys(EXTENSIONS, "folder"),
    "parquet": "",
    "csv": "csv",
    "tsv": "csv",
    "jsonl": "jsonl",
}
"""Kinds by what is found, the first that is: images mean a folder, whatever tables lie there."""


def guess_kind(path: Path) -> tuple[str, str]:
    """Return the kind of source at ``path``, and the file that tells.

    Raises MissingError where nothing lies, UsageError where it cannot be told.
    """
    if not path.exists():
        raise MissingError(
            f"{path}: no such file or folder; a kind of source that makes its own samples, such "
            "as glyphs, must be named with --kind"
        )
    first: dict[str, Path] = {}
    for file in itertools.islice(_files(path), _MOST_FILES):
        first.setdefault(file.suffix.lower().removeprefix("."), file)
        if _is_coco(file, path):
            return "coco", file.name
    for extension, kind in _BY_EXTENSION.items():
        if extension in first and not (kind == "folder" and path.is_file()):
            found = first[extension]
            return kind or _kind_of_parquet(found), found.name
    raise UsageError(
        f"{path}: cannot tell which kind of source this is; name it with --kind "
        "(see 'datacomp pool add --help')"
    )


def _is_coco(file: Path, root: Path) -> bool:
    """Tell COCO's JSON by its name: it can be too long to be looked into."""
    if file.suffix.lower() != ".json":
        return False
    named = file.name.startswith(("instances_", "captions_")) or file.name.endswith(".kwcoco.json")
    return file == root or named or file.parent == root / "annotations"


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _kind_of_parquet(file: Path) -> str:
    """Tell CommonPool's metadata, which have uids, and tables of images from other tables."""
    import pyarrow as pa
    from pyarrow import types

    try:
        schema = read_schema(file)
    except (pa.ArrowException, OSError, ValueError):
        return "parquet"
    if {"uid", "clip_l14_similarity_score"} <= set(schema.names):
        return "commonpool"
    # Their bytes cannot be read in place: this kind unpacks them.
    structs = [field.type for field in schema if types.is_struct(field.type)]
    if any(kind.get_field_index("bytes") >= 0 for kind in structs):
        return "huggingface"
    return "parquet"
