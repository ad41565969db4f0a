"""Append shards to a folder of shards: a dataset grows, and what was there stays byte for byte.

The tars of the increment get the next numbers and are linked, not copied, where that is possible.
Counts, the subset, the index and the manifest are brought up to date. The manifest is written last:
a tar behind those it names was left by a killed run, and the same call finishes that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import atomic_path, read_json, sha256_file, write_json, write_text
from ...errors import DataError, IntegrityError, MissingError, UsageError
from ...pools.uids import load_subset, save_subset, to_hex
from ..subset import Lookup, union
from .columns import uid_records
from .folder import GROWN, SHARD_NAME, STATE, known_entries, locked
from .index import ensure_index, index_shards
from .storage import PARQUET
from .upkeep import update_counts, update_manifest

if TYPE_CHECKING:
    import pyarrow as pa

SUBSET = "sample_ids.npy"
META = "meta.json"
MISSING = "missing.txt"
MAX_JSON_BYTES = 1 << 26


@dataclass
class AppendReport:
    """What a folder holds now, and the names under which the new shards stand there."""

    path: str
    samples: int
    shards: int
    added: list[str]
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def append_shards(directory: Path | str, increment: Path | str) -> AppendReport:
    """Append the shards of ``increment`` to those in ``directory``; both were built.

    After an interruption the same call goes on where it stopped. Raises UsageError where they do
    not go together, DataError where a sample stands in both, IntegrityError for a shard that is not
    as its manifest says, MissingError, StorageError.
    """
    directory, increment = Path(directory), Path(increment)
    for folder in (directory, increment):
        if not (folder / manifests.NAME).is_file() or not (folder / STATE).is_file():
            raise MissingError(
                f"{folder}: is no finished build; make one with 'datacomp shards build'"
            )
    if directory.resolve() == increment.resolve():
        raise UsageError(f"{directory}: cannot be appended to itself")
    with locked(directory):
        listed, new = _tars(directory), _tars(increment)
        _refuse_others(directory, increment)
        first = 1 + max((int(Path(name).stem) for name in listed), default=-1)
        places = {
            SHARD_NAME.format(number): entry for number, entry in enumerate(new.values(), first)
        }
        _refuse_strangers(directory, listed, places)
        _refuse_repeated(directory, increment, listed)
        write_json(directory / STATE, {**_json(directory / STATE), GROWN: True})
        for name, entry in places.items():
            _place(increment, entry, directory / name)
        _update_lists(directory, increment)
        update_counts(directory, list(places))
        meta = _json(directory / META)
        meta["output_shard_count"] = len(listed) + len(places)
        write_json(directory / META, meta)
        if (directory / PARQUET).is_file():
            index_shards(directory, keep_going=True)
        update_manifest(directory, list(places))
    digest = str(manifests.load(directory / manifests.NAME)["digest"])
    return AppendReport(
        str(directory), meta["output_count"], meta["output_shard_count"], list(places), digest
    )


def _tars(folder: Path) -> dict[str, FileEntry]:
    """Return the tars that a build's manifest names, by name and in their order."""
    known = sorted(known_entries(folder).items())
    found = {name: entry for name, entry in known if name.endswith(".tar")}
    for name in found:
        if not Path(name).stem.isdecimal():
            raise UsageError(f"{folder}: {name} is not numbered as 'datacomp shards build' does it")
    return found


def _refuse_others(directory: Path, increment: Path) -> None:
    """Refuse what would make a lie of ``meta.json`` or of the counts of samples."""
    ours, theirs = (_json(folder / META) for folder in (directory, increment))
    if ours.get("apply_blur") != theirs.get("apply_blur"):
        blurred, other = (
            (directory, increment) if ours.get("apply_blur") == "True" else (increment, directory)
        )
        raise UsageError(f"{other}: was built without --blur, {blurred} with it; build both alike")
    for folder in (directory, increment):
        build = _json(folder / STATE)
        if any(build.get(name) is not None for name in ("weights", "mix")):
            raise UsageError(f"{folder}: was built with weights, so nothing can be appended")


def _refuse_strangers(
    directory: Path, listed: dict[str, FileEntry], places: dict[str, FileEntry]
) -> None:
    """Refuse a folder with tars that neither its manifest names nor a killed run left."""
    for path in sorted(directory.glob("*.tar")):
        if path.name in listed:
            continue
        entry = places.get(path.name)
        if entry is None or path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
            raise DataError(
                f"{path}: {directory / manifests.NAME} does not name it, and it is not of this "
                "increment; finish appending the one it is of, or move it away"
            )


def _refuse_repeated(directory: Path, increment: Path, listed: dict[str, FileEntry]) -> None:
    """Refuse samples that the folder holds already."""
    index = ensure_index(directory, keep_going=True)
    lookup = Lookup(load_subset(increment / SUBSET))

    def search(rows: pa.RecordBatch) -> list[str]:
        records = uid_records(rows.column("uid"), PARQUET)
        hits = (lookup.find(records) >= 0).nonzero()[0]
        shards = rows.column("shard").take(hits).to_pylist() if len(hits) else []
        # What a killed run has appended is no repetition.
        held = zip(shards, to_hex(records[hits]), strict=True)
        return [uid for shard, uid in held if shard in listed]

    repeated = [uid for found in index.scan(("uid", "shard"), search) for uid in found]
    if repeated:
        more = f" and {len(repeated) - 1:,} more" if len(repeated) > 1 else ""
        raise DataError(
            f"{increment}: {directory} holds its sample {min(repeated)}{more} already; build it of "
            "what is new ('datacomp subset minus')"
        )


def _place(increment: Path, entry: FileEntry, place: Path) -> None:
    """Give a shard its number."""
    if place.is_file():
        return
    source = increment / entry.path
    try:
        with atomic_path(place) as partial:
            try:
                os.link(source, partial)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, partial)
            if sha256_file(partial) != entry.sha256:
                raise IntegrityError(
                    f"{source}: is not what its manifest.json says; run 'datacomp shards check'"
                )
    except FileNotFoundError:
        raise MissingError(f"{source}: no such file, though manifest.json names it") from None


def _update_lists(directory: Path, increment: Path) -> None:
    """Put subset, missing uids and what was blurred together; the same again changes nothing."""
    added = load_subset(increment / SUBSET)
    save_subset(directory / SUBSET, union(load_subset(directory / SUBSET), added))
    lines = {line for folder in (directory, increment) for line in _lines(folder / MISSING)}
    if lines:
        found = set(to_hex(added)) - {line.split(" ")[0] for line in _lines(increment / MISSING)}
        kept = sorted(line for line in lines if line.split(" ")[0] not in found)
        write_text(directory / MISSING, "".join(f"{line}\n" for line in kept))
    meta, theirs = _json(directory / META), _json(increment / META)
    digest = manifests.load(increment / manifests.NAME)["digest"]
    grown = meta.setdefault("appended", [])
    if digest not in grown:
        grown.append(digest)
        meta["blur_count"] = int(meta.get("blur_count") or 0) + int(theirs.get("blur_count") or 0)
        write_json(directory / META, meta)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _json(path: Path) -> dict[str, Any]:
    value: Any = None
    with contextlib.suppress(MissingError, DataError):
        value = read_json(path, MAX_JSON_BYTES)
    if not isinstance(value, dict):
        raise DataError(f"{path}: not what 'datacomp shards build' writes there")
    return value
