"""Where the tars of an index lie: a folder, or URLs that a pattern or a listing names."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError, MissingError, UnsafeInputError, UsageError
from ...pools.images import EXTENSIONS
from ...pools.patience import patiently
from ...pools.ranges import fetch, is_remote, join, store
from ...pools.views import METADATA as VIEW

MAX_TARS = 10_000_000
MAX_LISTING = 1 << 28
LOOKED_AT = 1000
"""Names looked at to tell what a folder without tars is."""
LISTINGS = ("manifest.json", "sizes.json", "listing.txt")
"""Files that name the tars of a folder on a web server: the first that is there counts."""

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Tars:
    """A folder or URL and the names of the tars in it, sorted."""

    root: str
    names: tuple[str, ...]
    expected: bool = False
    """Whether the names are those that must be there, not those that were found."""

    @property
    def remote(self) -> bool:
        """Whether they lie on another machine."""
        return is_remote(self.root)


def find_tars(source: Path | str) -> Tars:
    """Find the tars of a folder, of ``https://.../{00000..00009}.tar``, or of a URL's listing.

    Raises MissingError, DataError (none found), UnsafeInputError (names).
    """
    place = str(source)
    if not is_remote(place):
        return Tars(place, tuple(tar_names(Path(place))))
    root, _, last = place.rpartition("/")
    expected = _BRACES.search(place) is not None or last.endswith(".tar")
    if expected:
        names = _expand(last, place)
    else:
        root = place.rstrip("/")
        names = _listed(root) if place.startswith(("http://", "https://")) else _stored(root)
    names = sorted(names)
    if not names:
        raise DataError(f"{place}: no .tar files found")
    _check_names(names, place)
    return Tars(root, tuple(names), expected)


def holes(names: Sequence[str]) -> list[range]:
    """Return the numbers that are missing among the names of tars that are numbered.

    Numbers with leading zeros begin at 0: {00000000..N} is how readers name them.
    """
    stems = [name.removesuffix(".tar") for name in names]
    if not all(stem.isascii() and stem.isdigit() for stem in stems):
        return []
    numbers = sorted({int(stem) for stem in stems})
    if any(stem[0] == "0" for stem in stems):
        numbers.insert(0, -1)
    return [
        range(before + 1, after)
        for before, after in itertools.pairwise(numbers)
        if after - before > 1
    ]


def numbered(number: int, names: Sequence[str]) -> str:
    """Return the name of a tar of that number among the names of others."""
    width = min(len(name) for name in names) - len(".tar")
    return f"{number:0{width}d}.tar"


def tar_names(directory: Path) -> list[str]:
    """Return the names of the tars that lie directly in a folder, sorted."""
    if not directory.is_dir():
        raise MissingError(f"{directory}: no such folder")
    names = sorted(
        path.name for path in directory.glob("*.tar") if path.is_file() and path.name[0] != "."
    )
    if not names:
        raise DataError(f"{directory}: {_none_found(directory)}")
    _check_names(names, str(directory))
    return names


def _none_found(directory: Path) -> str:
    """Say that there are no tars, and what there is."""
    if (directory / VIEW).is_file():
        return "a view, which has no tars of its own; name the folder of shards it is of"
    inside = itertools.islice(
        itertools.chain(directory.glob("*"), directory.glob("*/*")), LOOKED_AT
    )
    if any(path.suffix.lower().removeprefix(".") in EXTENSIONS for path in inside):
        pool = f"'datacomp pool add POOL {directory} --kind folder'"
        return f"no .tar files found, but images: {pool} makes a pool of them, to build from"
    return "no .tar files found"


def _check_names(names: list[str], where: str) -> None:
    for name in names:
        if not name.isprintable():
            raise UnsafeInputError(f"{where}: tar name {name!r} is not printable; rename it")
        if "/" in name or "\\" in name or name.startswith("."):
            raise UnsafeInputError(f"{where}: tar name {name[:80]!r} is not a plain name; refused")


def _expand(pattern: str, where: str) -> list[str]:
    """Write out ``{00000..00009}``: every number between the two, padded as they are."""
    found = _BRACES.search(pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise UsageError(f"{where}: expected a range in braces, as in {{00000..00009}}.tar")
        return [pattern]
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MAX_TARS:
        raise UsageError(f"{where}: {found[0]} is no range of at most {MAX_TARS:,} numbers")
    width = len(found[1]) if len(found[1]) == len(found[2]) or found[1][0] == "0" else 0
    return [
        f"{pattern[: found.start()]}{number:0{width}d}{pattern[found.end() :]}"
        for number in range(first, last + 1)
    ]


def _listed(root: str) -> list[str]:
    for name in LISTINGS:
        data = fetch(join(root, name), MAX_LISTING)
        if data is not None:
            return [item for item in _names_in(data, join(root, name)) if item.endswith(".tar")]
    raise MissingError(
        f"{root}: has none of {', '.join(LISTINGS)} to say which tars there are; give a pattern "
        "as {00000..00009}.tar"
    )


def _names_in(data: bytes, where: str) -> list[str]:
    """Return the names in a listing: our manifest, DataComp's sizes.json, or one name a line."""
    if where.endswith(".txt"):
        return data.decode(errors="replace").split("\n")
    try:
        value = json.loads(data)
        return [str(item["path"]) for item in value["files"]] if "files" in value else [*value]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"{where}: not a listing of tars") from None


def _stored(root: str) -> list[str]:
    system, path = store(root)
    try:
        system.invalidate_cache(path)  # what was listed before may have changed
        found = patiently(root, lambda: system.ls(path, detail=False), "listed")
    except FileNotFoundError:
        raise MissingError(f"{root}: no such folder") from None
    names = [str(item).rstrip("/").rpartition("/")[2] for item in found]
    return [name for name in names if name.endswith(".tar") and not name.startswith(".")]
