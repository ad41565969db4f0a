"""Write a set of synthetic images: WebDataset shards, or the authors' folders.

The set is cut into units of ``per_shard`` images. Units are made by any number of processes,
each is there whole or not at all, and a rerun makes the missing ones: the same bytes come out
however often the work was interrupted. ``synth.json`` holds the configuration; a folder that
holds another one is refused.

Images stand in blocks of instances, and in each block class after class, so that a shard holds
images of as many classes as the generator can do without repeating work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...durable import atomic_path, partial_path, storage_errors, write_bytes, write_json
from ...errors import StorageError, UsageError
from ...progress import Progress, duration, say
from ..parallel import default_workers
from ..processes import map_ordered
from ..tar import BLOCK, TarWriter
from . import png
from .classes import ClassTable, find_classes
from .contract import ClassRecord, Generator, Picture
from .marker import MARKER, check_folder

_DONE = ".done"
"""Holds an empty file for each unit of folders that is written."""
FORMATS = ("shards", "folder")
PER_SHARD = 1000
_MAX_SHARD = 100_000
_TAR_OVERHEAD = 8 * BLOCK
_FILE_OVERHEAD = 4096
_WARM_UP = 2.0
_SPARE = (1 << 20, 64 << 20)
"""Bytes the disk must have beyond the estimate, which may be half the truth: at least, at most."""


@dataclass(frozen=True)
class Report:
    """What became of a set: images in it, images drawn by this run, and where it lies."""

    kind: str
    path: str
    images: int
    drawn: int
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """A set that is to be made: what, where, and how it is cut."""

    generator: Generator
    out: Path
    format: str = "shards"
    per_shard: int = PER_SHARD

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format is {self.format!r}, expected shards or folder")
        if not 1 <= self.per_shard <= _MAX_SHARD:
            raise UsageError(f"per_shard is {self.per_shard}, expected 1 to {_MAX_SHARD:,}")

    def identity(self) -> dict[str, Any]:
        """Return what decides the bytes of the set."""
        return {
            **self.generator.identity(),
            "format": self.format,
            "per_shard": self.per_shard,
            "packer": png.PACKER,
        }

    @property
    def units(self) -> int:
        """How many shards there are, or groups of files as large as a shard."""
        return -(-self.generator.total // self.per_shard)

    def shard(self, unit: int) -> Path:
        """Return where a shard lies."""
        return self.out / f"{unit:05d}.tar"

    def size(self, unit: int) -> int:
        """Return how many images a unit has."""
        return min(self.per_shard, self.generator.total - unit * self.per_shard)

    def runs(self, unit: int) -> Iterator[tuple[int, int, int]]:
        """Yield what a unit holds: class number, first and last instance (exclusive)."""
        generator, at = self.generator, unit * self.per_shard
        stop = at + self.size(unit)
        row = generator.block * generator.classes
        while at < stop:
            first = at // row * generator.block
            width = min(generator.block, generator.instances - first)
            number, skipped = divmod(at - first * generator.classes, width)
            taken = min(width - skipped, stop - at)
            first += skipped
            yield generator.start_class + number, first, first + taken
            at += taken

    def bytes_estimate(self) -> int:
        """Return roughly how many bytes of disk the whole set takes."""
        overhead = _TAR_OVERHEAD if self.format == "shards" else _FILE_OVERHEAD
        return round(self.generator.total * (self.generator.cost().image_bytes + overhead))

    def seconds_estimate(self, workers: int) -> float:
        """Return roughly how many seconds the whole set takes."""
        cost, generator = self.generator.cost(), self.generator
        work = generator.total * cost.image_seconds + generator.classes * cost.class_seconds
        return _WARM_UP + work / workers

    def describe(self, workers: int) -> str:
        """Say in a line what will be made, and roughly for how much."""
        one = self.generator
        return (
            f"{one.kind}: {one.total:,} images ({one.classes:,} classes x {one.instances:,}) of "
            f"{one.size} px, about {_gigabytes(max(self.bytes_estimate(), 100_000))} and "
            f"{duration(self.seconds_estimate(workers))} with {workers} "
            f"{'worker' if workers == 1 else 'workers'}"
        )


def build(plan: Plan, workers: int | None = None) -> Report:
    """Make what is missing of a set; say before what it takes, refuse what the disk lacks.

    ``workers`` processes draw (None: one per processor); the bytes do not depend on them.
    Raises UsageError for a folder that holds something else, StorageError for a disk without
    room, and MissingError where numba is not installed.
    """
    if workers is None:
        alone = plan.seconds_estimate(1) < 2 * _WARM_UP  # starting others would take longer
        workers = 1 if alone else default_workers()
    if workers < 1:
        raise UsageError(f"workers is {workers}, expected at least 1")
    identity = plan.identity()
    check_folder(plan.out, identity)
    say(plan.describe(workers))
    _check_room(plan, plan.generator.total - sum(plan.size(unit) for unit in made_units(plan)))
    with _locked(plan.out) as was_there:
        new, made = check_folder(plan.out, identity), made_units(plan)  # others may have been here
        if new:
            write_json(plan.out / MARKER, identity)
        try:
            drawn = _draw(plan, made, workers)
        except Exception:
            if new and not made_units(plan):  # leave the place to what is asked for next
                _clear(plan.out, was_there)
            raise
    return Report(
        plan.generator.kind, str(plan.out), plan.generator.total, drawn, plan.generator.digest()
    )


def _draw(plan: Plan, made: set[int], workers: int) -> int:
    """Find the classes and draw the units that are not made; return how many images."""
    generator = plan.generator
    for option, name in generator.kept.items():
        path = getattr(generator, option)
        if path and not (plan.out / name).exists():
            write_bytes(plan.out / name, Path(path).read_bytes())
    find_classes(generator, plan.out, workers)
    if plan.format == "folder":
        _write_class_files(plan)
    drawn = 0
    with Progress(f"drawing {generator.kind}", generator.total, "images") as progress:
        progress.resume(sum(plan.size(unit) for unit in made))
        missing = ((plan, unit) for unit in range(plan.units) if unit not in made)
        for count in map_ordered(_make_unit, missing, workers):
            progress.advance(count)
            drawn += count
    return drawn


def made_units(plan: Plan) -> set[int]:
    """Return the units that are there, from one look at the folder."""
    folder = plan.out if plan.format == "shards" else plan.out / _DONE
    suffix = ".tar" if plan.format == "shards" else ""
    if not folder.is_dir():
        return set()
    stems = (name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix))
    return {int(stem) for stem in stems if stem.isdecimal() and int(stem) < plan.units}


def _check_room(plan: Plan, images: int) -> None:
    """Refuse to begin what cannot be written, or what the disk cannot hold."""
    if not images:
        return
    folder = next(path for path in (plan.out.absolute(), *plan.out.absolute().parents)
                  if path.is_dir())  # fmt: skip
    _check_writable(plan.out, folder)
    needed = plan.bytes_estimate() * images // plan.generator.total
    spare = min(max(needed, _SPARE[0]), _SPARE[1])
    free = shutil.disk_usage(folder).free
    if needed + spare > free:
        raise StorageError(
            f"{plan.out}: needs about {_gigabytes(needed)} and {_gigabytes(spare)} to spare, but "
            f"{_gigabytes(free)} are free; make fewer images or choose another disk"
        )


def _check_writable(out: Path, folder: Path) -> None:
    """Refuse a place in which no file can be made, whatever room it has."""
    try:
        with storage_errors(out), tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}; choose another place") from error


def _clear(out: Path, keep_folder: bool) -> None:
    """Empty a folder that was empty before, the configuration last: it tells what the rest is."""
    with storage_errors(out):
        for path in sorted(out.iterdir(), key=lambda path: path.name == MARKER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not keep_folder:
            out.rmdir()


def _gigabytes(size: int) -> str:
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[bool]:
    """Keep others from making a set in a folder, which is made; yield whether it was there."""
    was_there = out.exists()
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(folder), out.stat())
        except (BlockingIOError, FileNotFoundError):
            same = False
        try:
            if not same:
                raise StorageError(f"{out}: another process is making this set; wait for it to end")
            yield was_there
        finally:
            os.close(folder)


def _write_class_files(plan: Plan) -> None:
    """Write the authors' files about classes that are not there yet."""
    ids = plan.generator.class_ids
    for record in _classes(plan).records(ids[0], ids[-1] + 1):
        for name, data in plan.generator.class_files(record).items():
            if not (plan.out / name).exists():
                write_bytes(plan.out / name, data)


# -- one unit, in a worker -------------------------------------------------------------------


def _make_unit(task: tuple[Plan, int]) -> int:
    """Make one unit; return how many images it has."""
    plan, unit = task
    if plan.format == "shards":
        with atomic_path(plan.shard(unit)) as partial, partial.open("wb") as file:
            writer = TarWriter(file)
            for record, picture in _pictures(plan, unit):
                _add(writer, plan.generator, record, picture)
            writer.close()
    else:
        _write_files(plan, unit)
    return plan.size(unit)


@lru_cache(maxsize=4)
def _open_classes(folder: Path, start_class: int, changed: int) -> ClassTable:
    return ClassTable(folder, start_class)


def _classes(plan: Plan) -> ClassTable:
    """Return the table of classes, read once a process."""
    changed = (plan.out / "classes.parquet").stat().st_mtime_ns
    return _open_classes(plan.out, plan.generator.start_class, changed)


def _pictures(plan: Plan, unit: int) -> Iterator[tuple[ClassRecord, Picture]]:
    """Draw a unit's pictures."""
    known: dict[int, ClassRecord] = {}
    for class_id, first, last in plan.runs(unit):
        if class_id not in known:
            stop = min(class_id + 256, plan.generator.class_ids[-1] + 1)
            known = {one.class_id: one for one in _classes(plan).records(class_id, stop)}
        for picture in plan.generator.pictures(known[class_id], first, last):
            yield known[class_id], picture


def describe_picture(
    generator: Generator, record: ClassRecord, picture: Picture, uid: str
) -> dict[str, Any]:
    """Return all that is known of a picture, as it stands in its ``.json``."""
    return {
        "uid": uid,
        "kind": generator.kind,
        "class": record.class_id,
        "instance": picture.instance,
        "seed": generator.seed,
        "mode": generator.mode,
        "ink": ink(picture),
        **record.parameters,
        **picture.parameters,
    }


def ink(picture: Picture) -> float:
    """Return the share of pixels that differ from the background, to six decimals."""
    from .lines import count_drawn

    pixels = picture.pixels
    if pixels.ndim == 3:
        drawn = (pixels != picture.background).any(axis=2).sum()
    else:
        drawn = count_drawn(pixels, picture.background)
    return round(int(drawn) / (pixels.shape[0] * pixels.shape[1]), 6)


def _add(writer: TarWriter, generator: Generator, record: ClassRecord, picture: Picture) -> None:
    """Append one sample to a shard."""
    from ..uids import uid_of_bytes

    image, caption = png.encode(picture), generator.caption(record).encode()
    values = describe_picture(generator, record, picture, uid_of_bytes(image, caption))
    key = f"{record.class_id:06d}_{picture.instance:06d}"
    writer.add(f"{key}.cls", b"%d" % record.class_id)
    writer.add(f"{key}.json", json.dumps(values).encode())
    writer.add(f"{key}.png", image)
    writer.add(f"{key}.txt", caption)


def _write_files(plan: Plan, unit: int) -> None:
    """Write a unit's images under the authors' names, then note that it is done.

    Files are synced together, which is far quicker than one by one; until the note is there a
    rerun writes them again.
    """
    with storage_errors(plan.out):
        written: list[Path] = []
        for record, picture in _pictures(plan, unit):
            path = plan.out / plan.generator.file_name(record, picture.instance)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = partial_path(path)
            try:
                partial.write_bytes(png.encode(picture))
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            written.append(path)
        for path in {*written, *(path.parent for path in written)}:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    write_bytes(plan.out / _DONE / f"{unit:05d}", b"")
