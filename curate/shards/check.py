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
from ...pools.sources.base import caption_of_sample, values_of_sample
from ...pools.uids import UID_DTYPE, UidArray, from_hex, load_subset, sort_uids, to_hex
from ...progress import Progress
from ..subset import Lookup, multiplicities, tally
from .columns import integers, uid_records
from .folder import STATE
from .index import Index, load_index
from .storage import METADATA, PARQUET, open_parquet
from .tars import holes, numbered, tar_names

if TYPE_CHECKING:
    import pyarrow as pa

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
    shards: list[_Shard] = []
    engine = engine_of(workers)
    engine.reach(directory)
    with Progress("checking", len(paths), "shards") as progress:
        for shard in engine.map(_check_tar, paths, count=len(paths)):
            shards.append(shard)
            progress.advance()
    report = CheckReport(str(directory), len(shards), sum(shard.samples for shard in shards))
    problems = [problem for shard in shards for problem in shard.problems]
    problems += _numbering([shard.name for shard in shards])
    for shard in shards:
        problems += _stats(directory, shard)
    problems += _meta(directory, report)
    problems += _uids(directory, shards)
    problems += _index(directory, shards)
    problems += _manifest(directory, shards, engine)
    report.problems = sorted(problems)
    if page is not None:
        from .check_page import write_check_page

        write_check_page(Path(page), report, {s.name: (s.uids, s.offsets) for s in shards})
    return report


# -- one tar, in a worker --------------------------------------------------------------------


@dataclass
class _Shard:
    """A tar: how many samples, and uid and offset of those that can be used, shape (n,)."""

    name: str
    samples: int
    uids: UidArray
    offsets: NDArray[np.int64]
    problems: list[Problem]


def _check_tar(path: Path) -> _Shard:
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
    return _Shard(path.name, samples, records, np.array(offsets, np.int64), problems)


def _verify_caption(window: tar.Window, sample: tar.TarSample) -> None:
    values = {} if "txt" in sample.members else values_of_sample(window, sample)
    if caption_of_sample(window, sample, values) is None and "cls" not in sample.members:
        raise ValueError("no_caption")


def _verify_image(window: tar.Window, sample: tar.TarSample) -> None:
    image = next(sample.members[e] for e in EXTENSIONS if e in sample.members)
    verify(window(image.data, image.size))


# -- the folder ------------------------------------------------------------------------------


def _numbering(names: list[str]) -> Iterator[Problem]:
    """Numbered shards are read as {00000000..N}: a hole would stop or mislead a reader."""
    for hole in holes(names):
        first, last = (numbered(number, names) for number in (hole[0], hole[-1]))
        detail = "a hole in the numbering" + (f", up to {last}" if last != first else "")
        yield Problem(first, "", "missing_shard", detail)


def _stats(directory: Path, shard: _Shard) -> Iterator[Problem]:
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


def _uids(directory: Path, shards: list[_Shard]) -> Iterator[Problem]:
    """Compare the uids found with those of ``sample_ids.npy``, less those of ``missing.txt``."""
    found = np.concatenate([shard.uids for shard in shards])
    ordered = sort_uids(found)
    expected = multiplicities(ordered)[0]
    path = directory / "sample_ids.npy"
    if path.is_file():
        try:
            expected = load_subset(path)
        except DataError as error:
            yield Problem(path.name, "", "unreadable", str(error))
    uids, here, wanted = tally(ordered, expected)
    lacking, surplus = here < wanted, here > wanted
    if _is_weighed(directory):  # then the subset says which may be there, not how often
        lacking, surplus = np.zeros_like(lacking), surplus & (wanted == 0)
    known = _known_missing(directory) if lacking.any() else set()
    for uid, count, want in zip(
        to_hex(uids[lacking]), here[lacking].tolist(), wanted[lacking].tolist(), strict=True
    ):
        if uid not in known:
            yield Problem(path.name, uid, "missing_uid", f"{count} times instead of {want}")
    lookup = Lookup(uids[surplus])
    want_of = wanted[surplus].tolist()
    seen = [0] * len(want_of)
    for shard in shards:
        places = lookup.find(shard.uids)
        rows = np.flatnonzero(places >= 0)
        keys = _keys_at(directory / shard.name, shard.offsets[rows].tolist())
        for uid, key, place in zip(
            to_hex(shard.uids[rows]), keys, places[rows].tolist(), strict=True
        ):
            seen[place] += 1
            if seen[place] > want_of[place]:
                kind = "duplicate_uid" if want_of[place] else "unexpected_uid"
                yield Problem(shard.name, key, kind, f"uid {uid}")


def _is_weighed(directory: Path) -> bool:
    """Tell whether weights said how often the samples of a build are there."""
    build = _json(directory / STATE)
    return any(build.get(name) is not None for name in ("weights", "mix"))


def _known_missing(directory: Path) -> set[str]:
    path = directory / "missing.txt"
    if not path.is_file():
        return set()
    return {line.split(" ")[0] for line in path.read_text(errors="replace").splitlines()}


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


def _index(directory: Path, shards: list[_Shard]) -> Iterator[Problem]:
    """Compare uids and offsets with the index, if there is one."""
    if not (directory / PARQUET).is_file():
        return
    index = load_index(directory)
    if index is None:
        # A release has the rows, not when its tars were read.
        if not (directory / METADATA).exists() and _fits(directory, shards):
            return
        detail = "does not fit the tars as they are; run 'datacomp shards index' again"
        yield Problem(PARQUET, "", "index", detail)
        return
    for record, shard in zip(index.shards, shards, strict=True):
        if record.rows + record.dropped != len(shard.uids):
            detail = f"{len(shard.uids)} samples, but the index has {record.rows + record.dropped}"
            yield Problem(shard.name, "", "count", detail)
    if any(record.dropped for record in index.shards):
        return
    rows = list(index.scan(("uid", "offset"), _uids_and_offsets))
    uids, offsets = [uid for uid, _ in rows], [offset for _, offset in rows]
    same = np.array_equal(
        np.concatenate([np.empty(0, UID_DTYPE), *uids]),
        np.concatenate([shard.uids for shard in shards]),
    ) and np.array_equal(
        np.concatenate([np.empty(0, np.int64), *offsets]),
        np.concatenate([shard.offsets for shard in shards]),
    )
    if not same:
        yield Problem(PARQUET, "", "index", "names other samples or places than the tars hold")


def _fits(directory: Path, shards: list[_Shard]) -> bool:
    """Tell whether the rows of an index are those of the tars: the first place of each uid."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array([shard.name for shard in shards], pa.string())

    def look(rows: pa.RecordBatch) -> tuple[NDArray[np.int64], UidArray, NDArray[np.int64]]:
        tars = pc.index_in(rows["shard"].cast(pa.string()), value_set=names)  # pyright: ignore[reportAttributeAccessIssue]
        return tars.fill_null(-1).to_numpy(zero_copy_only=False), *_uids_and_offsets(rows)

    uids = np.concatenate([shard.uids for shard in shards])
    first = np.sort(np.unique(uids, return_index=True)[1])
    tars = np.repeat(np.arange(len(shards)), [len(shard.uids) for shard in shards])
    offsets = np.concatenate([shard.offsets for shard in shards])
    try:
        with open_parquet(directory / PARQUET) as file:
            if file.metadata.num_rows != len(first):
                return False
        rows = list(Index(directory, str(directory), (), "").scan(("uid", "shard", "offset"), look))
    except (DataError, OSError, pa.ArrowException):
        return False
    found = zip(*rows, strict=True) if rows else ([], [], [])
    wanted = (tars[first], uids[first], offsets[first])
    return all(
        np.array_equal(np.concatenate([want[:0], *parts]), want)
        for parts, want in zip(found, wanted, strict=True)
    )


def _uids_and_offsets(table: pa.RecordBatch) -> tuple[UidArray, NDArray[np.int64]]:
    return uid_records(table["uid"], PARQUET), integers(table["offset"], PARQUET)


def _manifest(directory: Path, shards: list[_Shard], engine: Engine) -> Iterator[Problem]:
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
    for shard in shards:
        if shard.name not in listed:
            yield Problem(shard.name, "", "unlisted", "manifest.json does not name it")
