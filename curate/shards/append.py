"""Append shards to a folder of shards: a dataset grows, and what was there stays byte for byte.

The tars of the increment get the next numbers and are linked, not copied, where that is possible.
Counts, the subset, the index and the manifest are brought up to date. The manifest is written last:
a tar behind those it names was left by a killed run, and the same call finishes that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import atomic_path, read_json, sha256_file, write_json, write_text
from ...errors import DataError, IntegrityError, MissingError, UsageError
from ...pools.merging import summed, walk
from ...pools.subset_files import SubsetFile
from ...pools.uids import UidArray, from_hex, is_uid, sort_uids, to_hex
from ..subset import Lookup, write_combined
from .columns import dictionary, uid_records
from .folder import GROWN, SHARD_NAME, STATE, known_entries, locked
from .found import UidRuns
from .index import ensure_index, index_shards
from .sieve import Sieve
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
    """Refuse samples that the folder holds already.

    Few rows of the index pass a sieve of what is added; they are sorted, on the disk if need be,
    and walked through beside it.
    """
    index = ensure_index(directory, keep_going=True)
    added = _subset(increment)
    sieve = Sieve(added.blocks(), added.count, [])

    def search(rows: pa.RecordBatch) -> UidArray:
        uids = uid_records(rows.column("uid"), PARQUET)
        passed, _ = sieve.find(uids)
        names, codes = dictionary(rows.column("shard"), PARQUET)
        # What a killed run has appended is no repetition.
        held = np.array([name in listed for name in names], bool)
        return uids[passed[held[codes[passed]]]]

    count, first = 0, ""
    with UidRuns(directory) as runs:
        for uids in index.scan(("uid", "shard"), search):
            runs.add(uids)
        for (own, _), *others in walk([added, *runs.all()]):
            ours = summed(others)[0]
            repeated = ours[Lookup(own).find(ours) >= 0]
            if len(repeated):
                first = first or to_hex(repeated[:1])[0]
                count += len(repeated)
    if count:
        more = f" and {count - 1:,} more" if count > 1 else ""
        raise DataError(
            f"{increment}: {directory} holds its sample {first}{more} already; build it of "
            "what is new ('datacomp subset minus')"
        )


def _subset(folder: Path) -> SubsetFile:
    """Return the subset of a build; DataError if it is not in order."""
    file = SubsetFile.of(folder / SUBSET)
    file.verify()
    return file


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
    added = _subset(increment)
    write_combined("union", [_subset(directory), added], directory / SUBSET)
    lines = {line: _uid(line) for folder in (directory, increment) for line in _lines(folder)}
    if lines:
        come = _among(added, set(lines.values())) - set(map(_uid, _lines(increment)))
        kept = sorted(line for line, uid in lines.items() if uid not in come)
        write_text(directory / MISSING, "".join(f"{line}\n" for line in kept))
    meta, theirs = _json(directory / META), _json(increment / META)
    digest = manifests.load(increment / manifests.NAME)["digest"]
    grown = meta.setdefault("appended", [])
    if digest not in grown:
        grown.append(digest)
        meta["blur_count"] = int(meta.get("blur_count") or 0) + int(theirs.get("blur_count") or 0)
        write_json(directory / META, meta)


def _among(file: SubsetFile, uids: Collection[str]) -> set[str]:
    """Return those of some uids that a subset has."""
    lookup = Lookup(sort_uids(from_hex([uid for uid in uids if is_uid(uid)])))
    return {uid for block in file.blocks() for uid in to_hex(block[lookup.find(block) >= 0])}


def _lines(folder: Path) -> list[str]:
    path = folder / MISSING
    return path.read_text().splitlines() if path.is_file() else []


def _uid(line: str) -> str:
    return line.split(" ", 1)[0]


def _json(path: Path) -> dict[str, Any]:
    value: Any = None
    with contextlib.suppress(MissingError, DataError):
        value = read_json(path, MAX_JSON_BYTES)
    if not isinstance(value, dict):
        raise DataError(f"{path}: not what 'datacomp shards build' writes there")
    return value
