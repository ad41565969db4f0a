"""The folder that is built: one build at a time, nothing of another's, done shards found again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import alone, sha256_file, storage_errors, write_json
from ...errors import DataError, MissingError, StorageError, UsageError
from ...pools.stores import files_below
from ...progress import say

SHARD_NAME = "{:08d}.tar"
STATS_NAME = "{:08d}_stats.json"
STATE = "build.json"
UNUSABLE = "unusable"
GROWN = "grown"
"""In ``build.json``: shards were appended, so that the build alone is no longer what is there."""
_SHARD = re.compile(r"[0-9]{8,}(\.tar|_stats\.json)")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a folder for one build at a time; make it if need be."""
    with none_empty(out), _locked(out):
        yield


@contextlib.contextmanager
def none_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder behind where there was none before."""
    made = not folder.exists()
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds something, as nearly always
                folder.rmdir()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    with storage_errors(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{out}: a file, but shards need a folder") from None
        except FileNotFoundError as error:  # a place where no folder can be made, as below /proc
            raise StorageError(f"cannot write {out}: {error.strerror}") from None
    with alone(out, f"{out}: another build is writing there; wait for it"):
        yield


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds something else than a build."""
    _refuse_foreign(str(out), [path.name for path in out.iterdir()])


def refuse_foreign_store(place: str) -> None:
    """Refuse a folder of an object store that holds something else than a build."""
    with contextlib.suppress(MissingError):
        _refuse_foreign(place, files_below(place))


def _refuse_foreign(out: str, names: list[str]) -> None:
    others = sorted(name for name in names if not name.startswith("."))
    if others and STATE not in others:
        raise UsageError(
            f"{out}: is not empty ({others[0]}) and was not made by 'datacomp shards build'; "
            "choose another folder"
        )


def claim(out: Path, identity: dict[str, Any]) -> list[tuple[str, str]]:
    """Write what is being built, or make sure that the same is being built already.

    Returns (uid, reason) of samples that an earlier attempt found to be unusable.
    """
    path = out / STATE
    if not path.exists():
        write_json(path, identity)
        return []
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: damaged; remove the folder {out} and build again")
    if found.get(GROWN):
        raise UsageError(
            f"{out}: has grown since it was built ('datacomp shards append'); build into another "
            "folder, and append that"
        )
    for name, value in identity.items():
        if found.get(name) != value:
            raise UsageError(
                f"{out}: holds another build ({name}: {short(found.get(name))} instead of "
                f"{short(value)}); choose another folder or remove this one"
            )
    try:
        return [(str(uid), str(reason)) for uid, reason in found.get(UNUSABLE, [])]
    except (TypeError, ValueError):
        raise DataError(f"{path}: damaged; remove the folder {out} and build again") from None


def begin_without(out: Path, identity: dict[str, Any], unusable: Sequence[tuple[str, str]]) -> None:
    """Delete the shards, so that they are built without samples found to be unusable.

    Killed before that is written down, the same call finds them again.
    """
    with storage_errors(out):
        _delete_shards(out)
    write_json(out / STATE, {**identity, UNUSABLE: unusable})


def make_room(out: Path, identity: dict[str, Any]) -> None:
    """Delete the shards of a build that differs in its source alone, so that it is made anew.

    ``identity`` is that of the new build as far as it is known before its samples are looked up.
    What names the build goes last: killed, the same call goes on.
    """
    path = out / STATE
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    other = {name for name, value in identity.items() if found.get(name) != value}
    if other != {"source"}:
        return
    say(f"{out}: its source has changed; its shards are deleted and made anew")
    with storage_errors(out):
        _delete_shards(out)
        (out / STATE).unlink()


def _delete_shards(out: Path) -> None:
    for file in sorted(out.iterdir()):
        if _SHARD.fullmatch(file.name):
            file.unlink()
    for name in ("missing.txt", manifests.NAME):
        (out / name).unlink(missing_ok=True)


def short(value: Any) -> str:
    """Write an option of a build or a view for a message."""
    if isinstance(value, dict):
        value = {k: v[:12] if isinstance(v, str) else v for k, v in value.items()}
        return ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
    return str(value)


def entry_of(path: Path) -> FileEntry:
    """Read a file and describe it for the manifest."""
    return FileEntry(path.name, path.stat().st_size, sha256_file(path))


def stats_path(shard: Path) -> Path:
    """Return where the stats of a shard stand."""
    return shard.with_name(STATS_NAME.format(int(shard.stem)))


def known_entries(out: Path) -> dict[str, FileEntry]:
    """Return what the manifest of an earlier, finished run says of the shards."""
    path = out / manifests.NAME
    if not path.exists():
        return {}
    files = manifests.load(path)["files"]
    return {item["path"]: FileEntry(**item) for item in files}


def is_whole(out: Path, number: int, count: int, known: dict[str, FileEntry]) -> bool:
    """Tell whether a shard is there. Its stats are written after it, so both means whole."""
    path = out / SHARD_NAME.format(number)
    stats = stats_path(path)
    if (
        not path.is_file()
        or not stats.is_file()
        or stats.read_bytes() != stats_text(count).encode()
    ):
        return False
    return path.name not in known or known[path.name].size == path.stat().st_size


def stats_text(count: int) -> str:
    """Return the stats of a shard of so many samples, as the original tools read them."""
    return json.dumps({"successes": count})
