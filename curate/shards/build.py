"""Build real shards of a subset: every selected sample, in a fixed order, byte for byte alike.

Layout of the folder built:

* ``{:08d}.tar``: samples ``<uid>-<j>`` (j counts repetitions), members in alphabetical order;
* ``{:08d}_stats.json``: ``{"successes": n}``;
* ``sample_ids.npy``: the subset file; ``missing.txt``: uids of it that were not to be had;
* ``meta.json``: counts and options as DataComp's own trainer reads them;
* ``manifest.json``: size and SHA-256 of all of these, written last: it marks the folder whole;
* ``build.json``: what is being built. A rerun goes on where it stopped, a rerun with another
  source, subset or option is refused.

The order is that of the uids, which are hashes and so shuffle by themselves; a seed shuffles
samples whose uids are not. Neither depends on the number of workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import (
    atomic_path,
    digest,
    sha256_file,
    storage_errors,
    write_json,
    write_text,
)
from ...errors import DataError, IntegrityError, StorageError, UsageError
from ...pools import tar
from ...pools.uids import UidArray, digest_of_uids, load_subset, to_hex
from ...progress import Progress
from ..subset import multiplicities
from .origin import Origin, Slice, open_origin
from .parallel import default_workers, map_ordered

FORMAT = "datacomp-build"
VERSION = 1
SHARD_SIZE = 10_000
SHARD_NAME = "{:08d}.tar"
STATS_NAME = "{:08d}_stats.json"
LISTED = 3

Places = NDArray[np.int64]

_REASONS = {
    "not_in_source": "not in {source}",
    "no_image": "without an image at hand",
    "unreadable": "with an image that cannot be read",
}


@dataclass
class BuildReport:
    """What was built. ``selected`` and ``samples`` count repetitions, ``missing`` does not."""

    path: str
    selected: int
    samples: int
    shards: int
    reused: int
    bytes: int
    missing: dict[str, int] = field(default_factory=dict)
    digest: str = ""

    @property
    def complete(self) -> bool:
        """Whether every selected sample was found."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def build_shards(
    source: Path | str,
    subset: Path | str,
    out: Path | str,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    shuffle: int | None = None,
    keep_going: bool = False,
) -> BuildReport:
    """Write the samples of ``subset`` from ``source`` into shards in the folder ``out``.

    ``source`` is a folder of tars or a pool. Uids that cannot be had are an error; with
    ``keep_going`` they are listed in ``missing.txt``. After an interruption the same call goes
    on where it stopped. Raises UsageError, DataError, IntegrityError, MissingError,
    StorageError.
    """
    source, subset, out = Path(source), Path(subset), Path(out)
    if shard_size < 1:
        raise UsageError(f"shard size is {shard_size}, expected at least 1")
    if shuffle is not None and not 0 <= shuffle < 2**63:
        raise UsageError(f"shuffle seed is {shuffle}, expected 0 to 2**63 - 1")
    workers = workers or default_workers()
    wanted = load_subset(subset)
    if not len(wanted):
        raise DataError(f"{subset}: the subset is empty; there is nothing to build")
    request = _Request(source, subset, wanted, shard_size, shuffle, keep_going)
    with _locked(out):
        _refuse_foreign(out)
        origin = open_origin(source, workers, keep_going)
        try:
            plan = _plan(origin, request)
            _claim(out, plan)
            return _build(origin, plan, subset, out, workers)
        finally:
            origin.close()


# -- planning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """What the caller wants."""

    source: Path
    subset: Path
    wanted: UidArray
    shard_size: int
    shuffle: int | None
    keep_going: bool


@dataclass(frozen=True)
class _Plan:
    """What goes where: ``order`` and ``copy``, shape (n,), say which uid stands at each place."""

    identity: dict[str, Any]
    uids: UidArray
    order: Places
    copy: Places
    selected: int
    missing: list[tuple[str, str]]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The range of places of each shard."""
        size, total = self.identity["shard_size"], len(self.order)
        return [(first, min(first + size, total)) for first in range(0, total, size)]

    def names(self, part: tuple[int, int]) -> list[str]:
        """Return the keys of the samples of a shard."""
        uids = to_hex(self.uids[self.order[slice(*part)]])
        copies = self.copy[slice(*part)].tolist()
        return [f"{uid}-{copy}" for uid, copy in zip(uids, copies, strict=True)]


def _plan(origin: Origin, request: _Request) -> _Plan:
    uids, counts = multiplicities(request.wanted)
    reasons = origin.find(uids)
    missing = np.logical_or.reduce(list(reasons.values()))
    if missing.all():
        raise DataError(
            f"{request.source}: none of the {len(uids):,} uids of {request.subset} can be had "
            "from it"
        )
    if missing.any() and not request.keep_going:
        raise _missing_error(request, uids, reasons)
    listed = sorted((uid, why) for why, mask in reasons.items() for uid in to_hex(uids[mask]))
    order, copy = _order(uids, np.where(missing, 0, counts), request.shuffle)
    identity = {
        "format": FORMAT,
        "version": VERSION,
        "source": {"kind": origin.kind, "digest": origin.digest},
        "subset": {"count": len(request.wanted), "digest": digest_of_uids(request.wanted)},
        "shard_size": request.shard_size,
        "shuffle": request.shuffle,
        "missing": {"count": len(listed), "digest": digest(listed)},
    }
    return _Plan(identity, uids, order, copy, len(request.wanted), listed)


def _order(uids: UidArray, counts: Places, shuffle: int | None) -> tuple[Places, Places]:
    """Return for each output place which uid stands there and which repetition of it."""
    order = np.repeat(np.arange(len(uids)), counts)
    copy = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    if shuffle is None:
        return order, copy
    # A hash of uid, repetition and seed: unlike a random generator's stream, it is the same in
    # every version of numpy, and a sample's rank does not depend on what else is selected.
    rank = _mix(uids["f0"][order] ^ _mix(uids["f1"][order] ^ _mix(copy.astype(np.uint64))))
    rank = _mix(rank ^ _mix(np.full(1, shuffle, np.int64).view(np.uint64)))
    shuffled = np.argsort(rank, kind="stable")
    return order[shuffled], copy[shuffled]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers (the finaliser of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _missing_error(
    request: _Request, uids: UidArray, reasons: dict[str, NDArray[np.bool_]]
) -> DataError:
    parts = []
    for reason, mask in reasons.items():
        count = int(mask.sum())
        if count:
            shown = ", ".join(to_hex(uids[mask][:LISTED])) + (", ..." if count > LISTED else "")
            parts.append(f"{count:,} {_REASONS[reason].format(source=request.source)} ({shown})")
    return DataError(
        f"{request.subset}: of {len(uids):,} uids {'; '.join(parts)}; --keep-going leaves them out"
    )


# -- the folder that is built ----------------------------------------------------------------


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a folder for one build at a time; make it if need be."""
    with storage_errors(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{out}: a file, but shards need a folder") from None
        except FileNotFoundError as error:  # a place where no folder can be made, as below /proc
            raise StorageError(f"cannot write {out}: {error.strerror}") from None
        descriptor = os.open(out, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(f"{out}: another build is writing there; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def _refuse_foreign(out: Path) -> None:
    if not (out / "build.json").exists():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            raise UsageError(
                f"{out}: is not empty ({others[0]}) and was not made by 'datacomp shards build'; "
                "choose another folder"
            )


def _claim(out: Path, plan: _Plan) -> None:
    """Write what is being built, or make sure that the same is being built already."""
    path = out / "build.json"
    if not path.exists():
        write_json(path, plan.identity)
        return
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: damaged; remove the folder {out} and build again")
    for name, value in plan.identity.items():
        if found.get(name) != value:
            raise UsageError(
                f"{out}: holds another build ({name}: {_short(found.get(name))} instead of "
                f"{_short(value)}); choose another folder or remove this one"
            )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {k: v[:12] if isinstance(v, str) else v for k, v in value.items()}
        return ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
    return str(value)


# -- building --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One output shard. Without samples it is there already and only its digest is needed."""

    path: Path
    names: list[str]
    samples: Slice | None


def _build(origin: Origin, plan: _Plan, subset: Path, out: Path, workers: int) -> BuildReport:
    parts = plan.parts
    known = _known_entries(out)
    whole = [
        _is_whole(out, number, last - first, known) for number, (first, last) in enumerate(parts)
    ]
    if not all(whole):
        (out / manifests.NAME).unlink(missing_ok=True)
    entries: list[FileEntry] = []
    report = BuildReport(
        path=str(out),
        selected=plan.selected,
        samples=len(plan.order),
        shards=len(parts),
        reused=sum(whole),
        bytes=0,
    )
    tasks = _tasks(origin, plan, out, whole, known)
    workers = min(workers, max(1, len(parts) - sum(whole) if known else len(parts)))
    with Progress("building shards", len(plan.order)) as progress:
        for number, entry in enumerate(map_ordered(_run, tasks, workers)):
            entries.append(entry)
            first, last = parts[number]
            progress.advance(last - first)
            report.bytes += entry.size
    entries += _write_rest(plan, subset, out)
    manifest = manifests.manifest_of(entries)
    manifests.write(out / manifests.NAME, manifest)
    for _, reason in plan.missing:
        report.missing[reason] = report.missing.get(reason, 0) + 1
    report.digest = manifest["digest"]
    return report


def _tasks(
    origin: Origin, plan: _Plan, out: Path, whole: list[bool], known: dict[str, FileEntry]
) -> Iterator[_Task | FileEntry]:
    parts = plan.parts
    slices = origin.slices(
        plan.order, [p for p, done in zip(parts, whole, strict=True) if not done]
    )
    for number, part in enumerate(parts):
        path = out / SHARD_NAME.format(number)
        if whole[number]:
            yield known.get(path.name) or _Task(path, [], None)
        else:
            yield _Task(path, plan.names(part), next(slices))


def _run(task: _Task | FileEntry) -> FileEntry:
    """Write one shard, or find out the digest of one that is there. Runs in a worker."""
    if isinstance(task, FileEntry):
        return task
    if task.samples is None:
        return _entry(task.path)
    return _write_shard(task.path, task.names, task.samples)


def _write_shard(path: Path, names: list[str], samples: Slice) -> FileEntry:
    written = 0
    with atomic_path(path) as partial, _HashingFile(partial) as raw:
        with io.BufferedWriter(raw, 1 << 20) as file:
            writer = tar.TarWriter(file)
            for name, members in zip(names, samples.samples(), strict=True):
                for extension, data in members:
                    writer.add(f"{name}.{extension}", data)
                written += 1
            writer.close()
        sha256 = raw.sha256.hexdigest()
    if written != len(names):
        raise IntegrityError(f"{path}: {written} samples written instead of {len(names)}")
    write_text(_stats_path(path), _stats(written))
    return FileEntry(path.name, writer.offset, sha256)


class _HashingFile(io.RawIOBase):
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
        )
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = os.write(self._descriptor, data)
        self.sha256.update(memoryview(data)[:count])
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _write_rest(plan: _Plan, subset: Path, out: Path) -> list[FileEntry]:
    """Write what is not a shard, and describe it together with the stats of the shards."""
    with atomic_path(out / "sample_ids.npy") as partial:
        shutil.copyfile(subset, partial)
    shards = len(plan.parts)
    meta = {
        "shard_size": str(plan.identity["shard_size"]),
        "shuffle": str(plan.identity["shuffle"]),
        "subset_file": "sample_ids.npy",
        "output_shard_format": SHARD_NAME,
        "output_shard_stats_format": STATS_NAME,
        "output_count": len(plan.order),
        "output_shard_count": shards,
    }
    write_json(out / "meta.json", meta)
    names = ["sample_ids.npy", "meta.json", *(STATS_NAME.format(n) for n in range(shards))]
    if plan.missing:
        write_text(out / "missing.txt", "".join(f"{uid} {why}\n" for uid, why in plan.missing))
        names.append("missing.txt")
    return [_entry(out / name) for name in names]


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.name, path.stat().st_size, sha256_file(path))


def _stats_path(shard: Path) -> Path:
    return shard.with_name(STATS_NAME.format(int(shard.stem)))


def _known_entries(out: Path) -> dict[str, FileEntry]:
    """Return what the manifest of an earlier, finished run says of the shards."""
    path = out / manifests.NAME
    if not path.exists():
        return {}
    files = manifests.load(path)["files"]
    return {item["path"]: FileEntry(**item) for item in files}


def _is_whole(out: Path, number: int, count: int, known: dict[str, FileEntry]) -> bool:
    """Tell whether a shard is there. Its stats are written after it, so both means whole."""
    path = out / SHARD_NAME.format(number)
    stats = _stats_path(path)
    if not path.is_file() or not stats.is_file() or stats.read_bytes() != _stats(count).encode():
        return False
    return path.name not in known or known[path.name].size == path.stat().st_size


def _stats(count: int) -> str:
    return json.dumps({"successes": count})
