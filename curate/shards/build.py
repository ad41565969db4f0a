"""Build real shards of a subset: every selected sample, in a fixed order, byte for byte alike.

Layout of the folder built:

* ``{:08d}.tar``: samples ``<uid>-<j>`` (j counts repetitions), members in alphabetical order;
* ``{:08d}_stats.json``: ``{"successes": n}``;
* ``sample_ids.npy``: the subset file; ``missing.txt``: uids of it that were not to be had;
* ``meta.json``: counts and options as DataComp's own trainer reads them;
* ``manifest.json``: size and SHA-256 of all of these, written last: it marks the folder whole;
* ``build.json``: what is being built. A rerun goes on where it stopped, a rerun with another
  source, subset or option is refused.

Samples from tars stand in the order of the tars, samples from a pool in that of their uids,
unless a seed shuffles them. The number of workers changes nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import atomic_path, digest, sha256_file, write_json, write_text
from ...errors import DataError, IntegrityError, UsageError
from ...pools import tar
from ...pools.engine import Engine, Workers, engine_of
from ...pools.parallel import default_workers
from ...pools.ranges import join
from ...pools.stores import require_stores
from ...pools.uids import from_hex, to_hex
from ...progress import Progress
from ..subset import Lookup
from .blur import Box, Boxes, blurred_members, box_files, read_boxes, require_known
from .destination import Destination, Known, destination_of
from .folder import SHARD_NAME, STATS_NAME, entry_of, stats_text
from .missing import Missing
from .origin import Members, Origin, Slice, TarOrigin, TarSlice, Unusable, open_origin
from .output import OutputFile
from .wanted import SHARD_SIZE, Wanted, at_hand

FORMAT = "datacomp-build"
VERSION = 2
SUBSET = "sample_ids.npy"
NO_BOXES = "no_face_boxes"
WRONG_BOXES = "wrong_face_boxes"
NOT_BLURRED = "not_blurred"
THREADS = 4
"""So many shards are copied at the same time, for each waits for the disk; more would wait for
each other."""


@dataclass
class BuildReport:
    """What was built. ``selected`` and ``samples`` count repetitions, ``missing`` does not.

    ``set_aside`` counts what the indexes of the sources leave out, wanted or not; ``weighed_out``
    the uids that weights left without a repetition, as was asked.
    ``blurred`` is the number of samples with a blurred image, None where none was to be.
    """

    path: str
    selected: int
    samples: int
    shards: int
    reused: int
    bytes: int
    missing: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    weighed_out: int = 0
    digest: str = ""
    blurred: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every selected sample was found."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def build_shards(
    source: Path | str | Sequence[Path | str],
    subset: Path | str,
    out: Path | str,
    *,
    shard_size: int = SHARD_SIZE,
    workers: Workers = None,
    shuffle: int | None = None,
    weights: Path | str | None = None,
    mix: Sequence[float] = (),
    pad: int | None = None,
    blur: Path | str | None = None,
    keep_going: bool = False,
    renew: bool = False,
) -> BuildReport:
    """Write the samples of ``subset`` from ``source`` into shards in the folder ``out``.

    ``source`` is a folder of tars, several of them, or a pool; ``weights`` and ``mix`` are those
    of ``select_shards``. ``pad`` makes every tar a multiple of so many bytes. ``blur`` has the
    face boxes to blur (see ``blur.read_boxes``). Uids that cannot be had are an error; with
    ``keep_going`` they are listed in ``missing.txt``. A folder that holds another build is refused;
    with ``renew`` one that differs in its folders of tars alone is made anew. After an
    interruption the same call goes on where it stopped. ``out`` may be a folder of an object store:
    each worker writes a shard to its own disk and puts it there. Raises UsageError, DataError,
    IntegrityError, MissingError, StorageError.
    """
    sources = [source] if isinstance(source, Path | str) else list(source)
    if not sources:
        raise UsageError("no source given; name a folder of tars or a pool")
    if pad is not None and (pad <= 0 or pad % tar.BLOCK):
        raise UsageError(f"tars can be padded to a multiple of {tar.BLOCK} bytes, not of {pad}")
    engine = engine_of(workers)
    require_stores(engine, out)
    with at_hand(sources, subset, weights) as (folders, chosen_by, weighed_by):
        wanted = Wanted.read(
            chosen_by, weights=weighed_by, mix=mix, shard_size=shard_size, shuffle=shuffle,
            keep_going=keep_going,
        )  # fmt: skip
        destination = destination_of(out)
        with destination.held():
            report = _build_held(folders, wanted, destination, engine, pad, blur, renew)
    report.path = str(out)
    return report


def _build_held(
    sources: Sequence[Path], wanted: Wanted, out: Destination, engine: Engine, pad: int | None,
    blur: Path | str | None, renew: bool,
) -> BuildReport:  # fmt: skip
    folder = next(iter(out.local()), Path(tempfile.gettempdir()))
    origin = open_origin(sources, engine, wanted.keep_going, folder)
    try:
        faces = None if blur is None else Path(blur)
        plan = _plan(origin, wanted, pad, faces, out if renew else None)
        unusable = out.claim(plan.identity, origin.changed)
        if unusable and not wanted.keep_going:
            raise DataError(
                f"{out.place}: was begun without {len(unusable):,} samples that cannot be used "
                f"({unusable[0][0]} {unusable[0][1]}); go on with --keep-going, or remove it"
            )
        require_stores(engine, *origin.stores())
        engine.reach(*origin.places(), *out.local())
        while True:
            try:
                now = plan.without(origin, unusable)
                return _build(origin, now, wanted.subset, out, engine)
            except _UnusableError as error:
                unusable = sorted({*unusable, *error.samples})
                out.begin_without(plan.identity, unusable)
    finally:
        origin.close()


# -- planning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How many samples go into the shards, and what is done to them."""

    identity: dict[str, Any]
    wanted: Wanted
    total: int
    missing: Missing
    faces: _Faces | None

    def without(self, origin: Origin, unusable: list[tuple[str, str]]) -> _Plan:
        """Return the plan of the samples that are left when some cannot be used."""
        if not unusable:
            return self
        wanted = self.wanted.without(from_hex([uid for uid, _ in unusable]))
        if not len(wanted):
            raise DataError(f"{wanted.subset}: none of its samples can be used")
        total, _ = origin.find(wanted)
        return replace(self, total=total, missing=self.missing.plus(unusable))

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The range of places of each shard."""
        size = self.identity["shard_size"]
        return [(first, min(first + size, self.total)) for first in range(0, self.total, size)]


class _Faces:
    """The face boxes of all samples wanted, found by uid."""

    def __init__(self, boxes: Boxes, lookup: Lookup, digest: str) -> None:
        self._boxes, self._lookup, self.digest = boxes, lookup, digest

    def places(self, origin: Origin, part: tuple[int, int]) -> list[int]:
        """Return where in the boxes each sample of a part stands."""
        return self._lookup.find(origin.uids(*part)).tolist()

    def of(self, places: list[int]) -> list[list[Box]]:
        """Return the boxes of samples."""
        return [self._boxes.of(place) for place in places]

    def count(self, origin: Origin, parts: list[tuple[int, int]]) -> tuple[int, int]:
        """Return how many samples of these parts have a face, with and without repetitions."""
        faces = self._boxes.counts() > 0
        seen = np.zeros(len(faces), bool)
        samples = 0
        for part in parts:
            places = self._lookup.find(origin.uids(*part))
            seen[places] = True
            samples += int(faces[places].sum())
        return samples, int((faces & seen).sum())


def _plan(
    origin: Origin,
    wanted: Wanted,
    pad: int | None,
    blur: Path | None,
    renewed: Destination | None,
) -> _Plan:
    """Find the samples; in the folder ``renewed`` an older build makes room, even for none."""
    faces, unknown = None, []
    if blur is not None:
        faces, wanted, unknown = _faces(wanted, blur)
    if renewed is not None and isinstance(origin, TarOrigin):
        renewed.make_room(_identity(origin, wanted, pad, faces))
    total, missing = origin.find(wanted)
    missing = missing.plus(unknown)
    identity = {**_identity(origin, wanted, pad, faces), "missing": missing.identity()}
    return _Plan(identity, wanted, total, missing, faces)


def _identity(
    origin: Origin, wanted: Wanted, pad: int | None, faces: _Faces | None
) -> dict[str, Any]:
    """Return what names a build; of a pool it is known when its samples were found."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": {"kind": origin.kind, "digest": origin.digest},
        **wanted.identity(),
        "pad": pad,
        "blur": None if faces is None else faces.digest,
    }


def _faces(wanted: Wanted, blur: Path) -> tuple[_Faces, Wanted, list[tuple[str, str]]]:
    """Read the boxes; samples whose boxes are not known are an error, or left out."""
    uids, _ = wanted.everything()
    boxes = read_boxes(blur, uids)
    if not wanted.keep_going:
        require_known(boxes, uids, blur)
    unknown = [(uid, NO_BOXES) for uid in to_hex(uids[~boxes.known])]
    unknown += [(uid, WRONG_BOXES) for uid in to_hex(uids[boxes.wrong])]
    kept = wanted.without(uids[~boxes.known | boxes.wrong])
    if not len(kept):
        raise DataError(f"{blur}: says nothing about the faces of any sample of {wanted.subset}")
    named = digest([sha256_file(path) for path in box_files(blur)])
    return _Faces(boxes, Lookup(uids), named), kept, unknown


# -- building --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One output shard."""

    out: Destination
    number: int
    count: int
    samples: Slice
    pad: int | None
    boxes: list[list[Box]] | None
    keep_going: bool


class _UnusableError(Exception):
    """Samples, as (uid, reason), that turned out to be unusable while they were read."""

    def __init__(self, samples: list[tuple[str, str]]) -> None:
        super().__init__(samples)
        self.samples = samples


def _build(
    origin: Origin, plan: _Plan, subset: Path, out: Destination, engine: Engine
) -> BuildReport:  # fmt: skip
    parts = plan.parts
    found = out.found([last - first for first, last in parts])
    entries: list[FileEntry] = []
    report = BuildReport(
        path=out.place,
        selected=plan.wanted.selected,
        samples=plan.total,
        shards=len(parts),
        reused=len(parts) - found.shards.count(None),
        bytes=0,
        set_aside=dict(origin.set_aside),
        missing=plan.missing.reasons(),
        weighed_out=origin.weighed_out,
    )
    tasks = _tasks(origin, plan, out, found.shards)
    count = sum(not isinstance(shard, FileEntry) for shard in found.shards)
    # Copying is hashing and waiting for the disk, which let go of Python's lock: a few threads do
    # it without the time that processes take to start.
    copies = isinstance(origin, TarOrigin) and plan.faces is None
    threads = THREADS if copies else 0
    worth = max(THREADS, default_workers()) if copies else None
    built = engine.map(_run, tasks, count=count, worth=worth, threads=threads)
    unusable: list[tuple[str, str]] = []
    with Progress("building shards", plan.total) as progress:
        for number, entry in enumerate(built):
            first, last = parts[number]
            progress.advance(last - first)
            if isinstance(entry, FileEntry):
                entries.append(entry)
                report.bytes += entry.size
            else:
                unusable += entry
    if unusable:
        raise _UnusableError(unusable)
    images = 0
    if plan.faces is not None:
        report.blurred, images = plan.faces.count(origin, parts)
    entries += _write_rest(plan, images, subset, out, found.known)
    manifest = manifests.manifest_of(entries)
    if {entry.path: entry for entry in entries} != found.known:
        with out.file(manifests.NAME) as path:
            manifests.write(path, manifest)
    out.settle()
    report.digest = manifest["digest"]
    return report


def _tasks(
    origin: Origin, plan: _Plan, out: Destination, found: list[FileEntry | Path | None]
) -> Iterator[_Task | FileEntry | Path]:
    parts = plan.parts
    slices = origin.slices([p for p, there in zip(parts, found, strict=True) if there is None])
    for number, (part, there) in enumerate(zip(parts, found, strict=True)):
        if there is not None:
            yield there
            continue
        boxes = None
        if plan.faces is not None:
            boxes = plan.faces.of(plan.faces.places(origin, part))
        yield _Task(
            out, number, part[1] - part[0], next(slices), plan.identity["pad"], boxes,
            plan.wanted.keep_going,
        )  # fmt: skip


def _run(task: _Task | FileEntry | Path) -> FileEntry | list[tuple[str, str]]:
    """Write one shard, or find out the digest of one that is there. Runs in a worker.

    Returns (uid, reason) of the samples that cannot be used, if there are such.
    """
    if isinstance(task, FileEntry):
        return task
    if isinstance(task, Path):
        return entry_of(task)
    try:
        return _write_shard(task)
    except _UnusableError as error:
        return error.samples


def _write_shard(task: _Task) -> FileEntry:
    name = SHARD_NAME.format(task.number)
    with (
        task.out.file(name) as path,
        atomic_path(path) as partial,
        OutputFile(partial) as file,
    ):
        if isinstance(task.samples, TarSlice) and task.boxes is None:
            written = task.samples.copy(file)
        else:
            written = _write_samples(task, file)
        if written != task.count:
            where = join(task.out.place, name)
            raise IntegrityError(f"{where}: {written} samples written instead of {task.count}")
        file.write(tar.END)
        if task.pad is not None:
            file.write(bytes(-file.size % task.pad))
        sha256 = file.finish()
    with task.out.file(STATS_NAME.format(task.number)) as path:
        write_text(path, stats_text(written))
    entry = FileEntry(name, file.size, sha256)
    task.out.note(entry)
    return entry


def _write_samples(task: _Task, file: OutputFile) -> int:
    """Write samples that were taken apart; return how many."""
    written = 0
    unusable: list[tuple[str, str]] = []
    writer = tar.TarWriter(file)
    for number, (key, members) in enumerate(task.samples.samples()):
        boxes = task.boxes[number] if task.boxes is not None else []
        found = _blurred(key, members, boxes)
        if isinstance(found, Unusable):
            if not task.keep_going:
                raise found.error
            unusable.append((key.rpartition("-")[0], found.reason))
            continue
        for extension, data in found:
            writer.add(f"{key}.{extension}", data)
        written += 1
    if unusable:
        raise _UnusableError(unusable)
    return written


def _blurred(key: str, members: Members | Unusable, boxes: list[Box]) -> Members | Unusable:
    if isinstance(members, Unusable) or not boxes:
        return members
    try:
        return blurred_members(members, boxes)
    except DataError as error:
        said = f"{key}: its faces cannot be blurred: {error}; leave the sample out of the subset"
        return Unusable(NOT_BLURRED, DataError(said))


def _write_rest(
    plan: _Plan, blurred: int, subset: Path, out: Destination, known: Known
) -> list[FileEntry]:
    """Write what is not a shard, and describe it together with the stats of the shards.

    ``blurred`` counts images: one that stands there k times was blurred once.
    """
    out.copy(subset, SUBSET, known)
    entries = [replace(entry_of(subset), path=SUBSET)]
    plan.wanted.file.require_same()  # as it was when the samples were chosen
    meta = {
        "shard_size": str(plan.identity["shard_size"]),
        "shuffle": str(plan.identity["shuffle"]),
        "subset_file": SUBSET,
        "output_shard_format": SHARD_NAME,
        "output_shard_stats_format": STATS_NAME,
        "apply_blur": str(plan.faces is not None),
        "blur_count": blurred,
        "output_count": plan.total,
        "output_shard_count": len(plan.parts),
    }
    with out.file("meta.json", known) as path:
        write_json(path, meta)
        entries.append(entry_of(path))
    if len(plan.missing):
        with out.file("missing.txt", known) as path:
            plan.missing.write(path)
            entries.append(entry_of(path))
    for number, (first, last) in enumerate(plan.parts):
        stats = stats_text(last - first).encode()
        sha256 = hashlib.sha256(stats).hexdigest()
        entries.append(FileEntry(STATS_NAME.format(number), len(stats), sha256))
    return entries
