"""Check a folder of shards: every image decodes, every count is right, every digest fits.

Nothing is skipped, and nothing is changed (see ``repair``): what is wrong is listed as (kind,
shard, key).

* of a tar: ``truncated``, ``broken``, ``unsafe``;
* of a sample: ``no_image``, ``json_broken``, ``no_caption``, ``caption_not_utf8`` and the like (the
  reason codes of the index; with a label, ``.cls``, there need be no caption), ``image_broken``,
  ``image_unsafe``, ``duplicate_uid``, ``unexpected_uid``, ``missing_uid`` (the last three against
  ``sample_ids.npy``; without one every uid may stand there once);
* of the folder: ``missing_shard`` (a hole in the numbering), ``stats_missing``, ``unreadable``,
  ``count`` (stats, ``meta.json`` or the index say another number), ``index``;
* of a file in ``manifest.json``: ``file_missing``, ``size``, ``digest``, ``unlisted``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...distribution import manifest as manifests
from ...errors import DataError, TruncatedError, UnsafeInputError
from ...pools import tar
from ...pools.engine import Engine, Workers, engine_of
from ...pools.identity import uid_of_sample
from ...pools.images import EXTENSIONS, verify
from ...pools.merging import Counted, summed, walk
from ...pools.ranges import is_remote
from ...pools.sources.base import caption_of_sample, values_of_sample
from ...pools.subset_files import SubsetFile
from ...pools.uids import UID_DTYPE, UidArray, from_hex, is_uid, joined_uids, to_hex
from ...progress import Progress
from ..subset import Lookup, tally
from .columns import integers, uid_records
from .folder import STATE
from .found import FoundSamples, Rows, UidRuns, rows_of, same_rows
from .index import Index, load_index
from .storage import METADATA, PARQUET
from .tars import holes, numbered, tar_names

if TYPE_CHECKING:
    import pyarrow as pa

SUBSET = "sample_ids.npy"
MISSING = "missing.txt"
LINES = 1 << 16
"""So many lines of ``missing.txt`` are looked at at a time."""
MAX_JSON_BYTES = 1 << 20
TAR_KINDS = ((TruncatedError, "truncated"), (UnsafeInputError, "unsafe"))
MANIFEST_KINDS = {"missing": "file_missing", "unsafe": "unsafe"}


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong; ``key`` is empty where it is not about one sample."""

    shard: str
    key: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        where = f"{self.shard}/{self.key}" if self.key else self.shard
        return f"{self.kind}: {where}{': ' if self.detail else ''}{self.detail}"


@dataclass
class CheckReport:
    """What was checked and what is wrong, sorted by shard and key."""

    path: str
    shards: int = 0
    samples: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def kinds(self) -> dict[str, int]:
        """Return how many problems there are of each kind."""
        counts: dict[str, int] = {}
        for problem in self.problems:
            counts[problem.kind] = counts.get(problem.kind, 0) + 1
        return dict(sorted(counts.items()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "sound": self.sound, "kinds": self.kinds()}


def check_shards(
    directory: Path | str, workers: Workers = None, page: Path | str | None = None
) -> CheckReport:
    """Read every sample of every tar in a folder; raises only if there is nothing to check.

    ``page`` is where a page goes that shows the problems and some samples.
    """
    directory = Path(directory)
    paths = [directory / name for name in tar_names(directory)]
    tars: list[_Tar] = []
    problems: list[Problem] = []
    engine = engine_of(workers)
    engine.reach(directory)
    with FoundSamples(directory) as found:
        with Progress("checking", len(paths), "shards") as progress:
            for checked in engine.map(_check_tar, paths, count=len(paths)):
                tars.append(_Tar(checked.name, checked.samples, len(checked.uids)))
                found.add(checked.uids, checked.offsets)
                problems += checked.problems
                progress.advance()
        names = [one.name for one in tars]
        report = CheckReport(str(directory), len(tars), sum(one.samples for one in tars))
        problems += _numbering(names)
        for one in tars:
            problems += _stats(directory, one)
        problems += _meta(directory, report)
        problems += _uids(directory, names, found)
        problems += _index(directory, tars, found)
        problems += _manifest(directory, names, engine)
        report.problems = sorted(problems)
        if page is not None:
            from .check_page import write_check_page

            write_check_page(Path(page), report, zip(names, found.tars(), strict=True))
    return report


# -- one tar, in a worker --------------------------------------------------------------------


@dataclass(frozen=True)
class _Checked:
    """A tar: how many samples, and uid and offset of those that can be used, shape (n,)."""

    name: str
    samples: int
    uids: UidArray
    offsets: NDArray[np.int64]
    problems: list[Problem]


def _check_tar(path: Path) -> _Checked:
    uids: list[str] = []
    offsets: list[int] = []
    problems: list[Problem] = []
    samples = 0
    with path.open("rb", buffering=0) as file:
        window = tar.Window(file.fileno())
        try:
            for sample in tar.samples_in(window, str(path)):
                samples += 1
                try:
                    uids.append(uid_of_sample(window, sample))
                    offsets.append(sample.start)
                    _verify_caption(window, sample)
                    _verify_image(window, sample)
                except UnsafeInputError as error:
                    problems.append(Problem(path.name, sample.key, "image_unsafe", str(error)))
                except DataError as error:
                    problems.append(Problem(path.name, sample.key, "image_broken", str(error)))
                except ValueError as error:
                    problems.append(Problem(path.name, sample.key, str(error)))
        except DataError as error:
            kind = next((k for kind, k in TAR_KINDS if isinstance(error, kind)), "broken")
            problems.append(Problem(path.name, "", kind, str(error)))
    records = from_hex(uids) if uids else np.empty(0, UID_DTYPE)
    return _Checked(path.name, samples, records, np.array(offsets, np.int64), problems)


def _verify_caption(window: tar.Window, sample: tar.TarSample) -> None:
    values = {} if "txt" in sample.members else values_of_sample(window, sample)
    if caption_of_sample(window, sample, values) is None and "cls" not in sample.members:
        raise ValueError("no_caption")


def _verify_image(window: tar.Window, sample: tar.TarSample) -> None:
    image = next(sample.members[e] for e in EXTENSIONS if e in sample.members)
    verify(window(image.data, image.size))


# -- the folder ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tar:
    """How many samples a tar has, and how many of them can be used."""

    name: str
    samples: int
    usable: int


def _numbering(names: list[str]) -> Iterator[Problem]:
    """Numbered shards are read as {00000000..N}: a hole would stop or mislead a reader."""
    for hole in holes(names):
        first, last = (numbered(number, names) for number in (hole[0], hole[-1]))
        detail = "a hole in the numbering" + (f", up to {last}" if last != first else "")
        yield Problem(first, "", "missing_shard", detail)


def _stats(directory: Path, shard: _Tar) -> Iterator[Problem]:
    path = directory / f"{shard.name.removesuffix('.tar')}_stats.json"
    if not path.is_file():
        yield Problem(shard.name, "", "stats_missing", f"there is no {path.name}")
        return
    promised = _json(path).get("successes")
    if promised != shard.samples:
        detail = f"{shard.samples} samples, but {path.name} says {promised!r}"
        yield Problem(shard.name, "", "count", detail)


def _meta(directory: Path, report: CheckReport) -> Iterator[Problem]:
    path = directory / "meta.json"
    if not path.is_file():
        return
    meta = _json(path)
    found = {"output_shard_count": report.shards, "output_count": report.samples}
    for name, count in found.items():
        if meta.get(name) != count:
            detail = f"{name} is {meta.get(name)!r}, but there are {count}"
            yield Problem(path.name, "", "count", detail)


def _json(path: Path) -> dict[str, Any]:
    """Return a small JSON object, empty for anything else."""
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError, OSError):
        value = None
    return value if isinstance(value, dict) else {}


def _uids(directory: Path, names: list[str], found: FoundSamples) -> Iterator[Problem]:
    """Compare the uids found with those of ``sample_ids.npy``, less those of ``missing.txt``."""
    path = directory / SUBSET
    expected: list[SubsetFile] = []
    if path.is_file():
        try:
            file = SubsetFile.of(path)
            file.verify()
            expected = [file]
        except DataError as error:
            yield Problem(path.name, "", "unreadable", str(error))
    weighed = _is_weighed(directory)  # then the subset says which may be there, not how often
    too_many: list[Counted] = []
    with UidRuns(directory) as known:
        for uids in _known_missing(directory) if expected and not weighed else ():
            known.add(uids)
        runs, listed = found.uids.all(), known.all()
        for pieces in walk([*expected, *listed, *runs]):
            here = summed(pieces[len(expected) + len(listed) :])
            once = (*here, np.ones_like(here[1]))
            uids, seen, wanted = tally(here, pieces[0]) if expected else once
            surplus = (seen > wanted) & (wanted == 0 if weighed else True)
            if surplus.any():
                too_many.append((uids[surplus], wanted[surplus]))
            lacking = np.flatnonzero(seen < wanted)
            if weighed or not len(lacking):
                continue
            left_out = Lookup(summed(pieces[len(expected) : len(expected) + len(listed)])[0])
            lacking = lacking[left_out.find(uids[lacking]) < 0]
            for uid, count, times in zip(
                to_hex(uids[lacking]), seen[lacking].tolist(), wanted[lacking].tolist(), strict=True
            ):
                yield Problem(path.name, uid, "missing_uid", f"{count} times instead of {times}")
    if too_many:
        yield from _surplus(directory, names, found, too_many)


def _surplus(
    directory: Path, names: list[str], found: FoundSamples, too_many: list[Counted]
) -> Iterator[Problem]:
    """Name the samples of some uids that come after as many as are wanted, in order."""
    uids = joined_uids([uids for uids, _ in too_many])
    wanted = np.concatenate([wanted for _, wanted in too_many])
    for name, (own, rows, places) in zip(names, found.beyond(uids, wanted), strict=True):
        here = np.flatnonzero(places >= 0)
        try:
            keys = _keys_at(directory / name, rows["offset"][here].tolist())
        except (DataError, OSError):
            keys = []
        if len(keys) < len(here):
            yield Problem(name, "", "broken", "changed while it was checked; check it again")
            continue
        for uid, key, times in zip(
            to_hex(own[here]), keys, wanted[places[here]].tolist(), strict=True
        ):
            kind = "duplicate_uid" if times else "unexpected_uid"
            yield Problem(name, key, kind, f"uid {uid}")


def _is_weighed(directory: Path) -> bool:
    """Tell whether weights said how often the samples of a build are there."""
    build = _json(directory / STATE)
    return any(build.get(name) is not None for name in ("weights", "mix"))


def _known_missing(directory: Path) -> Iterator[UidArray]:
    """Yield the uids that a build left out, some at a time."""
    path = directory / MISSING
    if not path.is_file():
        return
    with path.open(errors="replace") as lines:
        while some := list(itertools.islice(lines, LINES)):
            first = (line.split(" ")[0].rstrip("\n") for line in some)
            yield from_hex([uid for uid in first if is_uid(uid)])


def _keys_at(path: Path, offsets: list[int]) -> list[str]:
    """Return the keys of the samples that start at some offsets, in ascending order."""
    if not offsets:
        return []
    wanted = set(offsets)
    keys: list[str] = []
    for sample in tar.samples(path):
        if sample.start in wanted:
            keys.append(sample.key)
            if len(keys) == len(offsets):
                break
    return keys


def _index(directory: Path, tars: list[_Tar], found: FoundSamples) -> Iterator[Problem]:
    """Compare uids and offsets with the index, if there is one."""
    if not (directory / PARQUET).is_file():
        return
    index = load_index(directory)
    if index is None:
        # A release has the rows, not when its tars were read.
        if not (directory / METADATA).exists() and _fits(directory, tars, found):
            return
        detail = "does not fit the tars as they are; run 'datacomp shards index' again"
        yield Problem(PARQUET, "", "index", detail)
        return
    if is_remote(index.root) or [shard.name for shard in index.shards] != [t.name for t in tars]:
        detail = f"is that of other tars, at {index.root}; run 'datacomp shards index' again"
        yield Problem(PARQUET, "", "index", detail)
        return
    for record, one in zip(index.shards, tars, strict=True):
        if record.rows + record.dropped != one.usable:
            detail = f"{one.usable} samples, but the index has {record.rows + record.dropped}"
            yield Problem(one.name, "", "count", detail)
    if any(record.dropped for record in index.shards):
        return
    if not _holds(index, tars, (rows for _, rows in found.tars())):
        yield Problem(PARQUET, "", "index", "names other samples or places than the tars hold")


def _fits(directory: Path, tars: list[_Tar], found: FoundSamples) -> bool:
    """Tell whether the rows of an index are those of the tars: the first place of each uid."""
    repeated = [uids[counts > 1] for uids, counts in map(summed, walk(found.uids.all()))]
    uids = joined_uids([np.empty(0, UID_DTYPE), *repeated])
    once = np.ones(len(uids), np.int64)
    first = (rows[places < 0] for _, rows, places in found.beyond(uids, once))
    return _holds(Index(directory, str(directory), (), ""), tars, first)


def _holds(index: Index, tars: list[_Tar], rows: Iterator[Rows]) -> bool:
    """Tell whether an index has these rows; one that cannot be read has not."""
    import pyarrow as pa

    try:
        return same_rows(rows, _stored(index, tars))
    except (DataError, OSError, pa.ArrowException):
        return False


def _stored(index: Index, tars: list[_Tar]) -> Iterator[Rows]:
    """Yield the rows of an index; the number of a tar that is not there is -1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array([one.name for one in tars], pa.string())

    def look(rows: pa.RecordBatch) -> Rows:
        places = pc.index_in(rows["shard"].cast(pa.string()), value_set=names)  # pyright: ignore[reportAttributeAccessIssue]
        numbers = places.fill_null(-1).to_numpy(zero_copy_only=False)
        uids = uid_records(rows["uid"], PARQUET)
        return rows_of(uids, integers(rows["offset"], PARQUET), numbers)

    return index.scan(("uid", "shard", "offset"), look)


def _manifest(directory: Path, names: list[str], engine: Engine) -> Iterator[Problem]:
    path = directory / manifests.NAME
    if not path.is_file():
        return
    try:
        manifest = manifests.load(path)
    except DataError as error:
        yield Problem(path.name, "", "unreadable", str(error))
        return
    for problem in manifests.verify(directory, manifest, engine):
        kind = MANIFEST_KINDS.get(problem.kind, problem.kind)
        yield Problem(problem.path, "", kind, problem.detail)
    listed = {item["path"] for item in manifest["files"]}
    for name in names:
        if name not in listed:
            yield Problem(name, "", "unlisted", "manifest.json does not name it")
