"""``synth.json``: which set a folder holds, and whether it is the one that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import DataError, StorageError, UsageError
from . import generator_class
from .contract import Generator, without_paths

MARKER = "synth.json"
MAX_BYTES = 64 << 20


def read_marker(out: Path) -> dict[str, Any] | None:
    """Return the configuration of the set in a folder, None where there is no set."""
    path = out / MARKER
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
        raise DataError(f"{path}: not the configuration of a synthetic set; remove {out}")
    return found


def open_set(folder: Path | str) -> Generator | None:
    """Return the generator of the set in a folder, None where there is no set.

    Nothing outside the folder is read: what a set needs of the files it was made from, it keeps.
    """
    folder = Path(folder)
    found = read_marker(folder)
    if found is None:
        return None
    kind = generator_class(str(found.get("kind")))
    options = dict(found["options"])
    for option, name in kind.kept.items():
        if options.get(option):
            options[option] = str(folder / name)
    try:
        return kind.with_options(options)
    except UsageError as error:
        raise DataError(f"{folder / MARKER}: {error}; remove {folder}") from None


def check_folder(out: Path, identity: dict[str, Any]) -> bool:
    """Tell whether a folder is new; refuse one that holds anything but this very set."""
    found = read_marker(out)
    if found is None:
        if out.exists() and not out.is_dir():
            raise StorageError(f"cannot write {out}: a file stands where a folder is needed")
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(
                f"{out}: not empty, and no synthetic set ({MARKER} is missing); choose another "
                "folder"
            )
        return True
    if without_paths(found) != without_paths(identity):
        raise UsageError(
            f"{out}: holds another set ({_difference(found, identity)}); choose another folder "
            "or remove this one"
        )
    return False


def _difference(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Name the first thing in which two configurations differ."""
    there, here = ({**one["options"], **one} for one in (found, asked))
    for name in dict.fromkeys(["kind", "version", *asked["options"], *asked, *there]):
        before, now = there.get(name), here.get(name)
        if name == "options" or before == now:
            continue
        path = asked["options"].get(name, now)
        if isinstance(before, dict) and isinstance(now, dict):
            file = next(one for one in {**now, **before} if before.get(one) != now.get(one))
            return f"{file} of {path} is not the one it was made with"
        if name in asked["options"]:  # rather the path than what is in the file
            before, now = found["options"].get(name), path
        if before == now:
            return f"what is in {now} has changed"
        return f"{name} is {before!r} there, {now!r} was asked for"
    return "its configuration differs"
