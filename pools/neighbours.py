"""The samples of a pool whose features are most like a vector: exactly, or by way of sketches.

An exact search reads every feature once, a batch at a time: cosines in float32 to six decimals,
ties in the order of uids. That is right for thousands of samples. For millions, ``build`` keeps
a sketch beside the pool: one bit per dimension, whether a feature lies above the mean there, with
its uid and its place. A search then counts the differing bits to every sketch (12.8 million of 768
bits: 1.2 GB mapped, not loaded), and only the nearest few thousand are compared exactly. It returns
always what the features themselves say; a sketch can only overlook something. Sketches are
Charikar's (Similarity Estimation Techniques from Rounding Algorithms, 2002) with the axes for
planes, so that no rounding of a rotation can flip a bit: same features, same bytes.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..durable import atomic_directory, read_json, write_json
from ..errors import DatacompError, DataError, MissingError, UsageError
from ..progress import Progress
from .columns import HALVES
from .features import Features, File, feature_names
from .parallel import default_workers
from .pool import Pool
from .reading import locate
from .sources.commonpool import FILE
from .uids import UID_DTYPE, UidArray, from_halves

VERSION = 2
CANDIDATES = 4096
"""How many of the nearest sketches are compared exactly."""
EXACT = 200_000
"""Up to how many samples an exact search is quick: a second or two of 768 dimensions."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,126}")
_SLICE = 1 << 18
_MEAN_OF = 1 << 16
_MAX_ABOUT = 1 << 24
_PLACE = np.dtype([("file", "<u4"), ("row", "<u4")])
_CANDIDATE_UIDS = "SELECT (high::UHUGEINT << 64) + low::UHUGEINT AS uid FROM neighbour_candidates"


@dataclass(frozen=True)
class Neighbours:
    """The most alike samples, most alike first: uids (k,) and their cosines (k,), float32.

    ``compared`` of the pool's samples were looked at; ``sketched`` ones only roughly.
    """

    uids: UidArray
    cosines: NDArray[np.float32]
    compared: int
    sketched: bool = False


def names_of(pool: Pool) -> list[str]:
    """Return the names of the features that the pool's samples have."""
    registered = {row[0] for row in pool.sql("SELECT DISTINCT name FROM features").fetchall()}
    beside: set[str] = set()
    if FILE in pool.columns():
        for source, root in pool.source_paths().items():
            # One is soon found; the first in the order of names is the last of millions looked at.
            found = pool.row(
                f"SELECT {FILE} FROM samples WHERE source = {source} AND {FILE} IS NOT NULL LIMIT 1"
            )
            with contextlib.suppress(DatacompError):
                if found is not None:
                    beside.update(feature_names(locate(root, found[0]).with_suffix(".npz")))
    return sorted(name for name in registered | beside if _NAME.fullmatch(name))


def vector_of(features: Features, uid: int) -> NDArray[np.float32]:
    """Return the feature of one sample, shape (d,); raise MissingError if it has none."""
    found = features.one(uid)
    if found is not None:
        return np.asarray(found, np.float32)
    raise MissingError(f"sample {uid:032x} has no feature {features.name}")


def nearest(
    features: Features, vector: NDArray[np.floating[Any]], count: int, relation: str = "samples"
) -> Neighbours:
    """Find the samples of ``relation`` (as in ``Features.batches``) by comparing with each."""
    wanted = _unit(np.asarray(vector, np.float32), features)
    uids = np.empty(0, UID_DTYPE)
    cosines = np.empty(0, np.float32)
    compared = 0
    for more, vectors in features.batches(relation):
        compared += len(more)
        uids, cosines = _best(
            np.concatenate([uids, more]), np.concatenate([cosines, _cosines(vectors, wanted)]),
            count,
        )  # fmt: skip
    return Neighbours(uids, cosines, compared)


def _unit(vector: NDArray[np.float32], features: Features) -> NDArray[np.float32]:
    if vector.shape != (features.dimension,):
        raise DataError(
            f"a vector of shape {vector.shape}, but {features.name} has {features.dimension} "
            "dimensions"
        )
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or not length:
        raise DataError("a vector of no direction: nothing is like it")
    return vector / np.float32(length)


def _cosines(vectors: NDArray[np.floating[Any]], wanted: NDArray[np.float32]) -> NDArray:
    wide = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (wide @ wanted) / lengths
    # What has no direction is like nothing. Beyond six decimals BLAS decides, not the features.
    return np.where(np.isfinite(found), np.round(found, 6), np.float32(-2)).astype(np.float32)


def _best(uids: UidArray, cosines: NDArray, count: int) -> tuple[UidArray, NDArray]:
    known = np.flatnonzero(cosines > -2)
    order = known[np.lexsort((uids["f1"][known], uids["f0"][known], -cosines[known]))][:count]
    return uids[order], cosines[order]


# -- sketches --------------------------------------------------------------------------------


def folder_of(pool: Path) -> Path:
    """Return where the sketches of a pool's features lie: ``POOL.neighbours``."""
    return pool.with_name(pool.name + ".neighbours")


def build(pool: Pool, name: str) -> Path:
    """Make the sketches of a feature, replacing older ones; return their folder.

    Every feature is read once, in file order; memory does not grow with the pool. Raises
    MissingError where no sample has the feature, UsageError for a name that could be a path.
    """
    place = _place(pool.path, name)
    features = Features(pool, name)
    samples = pool.count()
    centre = _centre(features, samples)
    files: dict[File, int] = {}
    with atomic_directory(place.with_name(f"{name}.new")) as folder:
        total = 0
        with (
            (folder / "codes.bin").open("wb") as codes,
            (folder / "uids.bin").open("wb") as uids,
            (folder / "places.bin").open("wb") as places,
            Progress(f"sketching {name}", samples) as progress,
        ):
            for file, rows, found, vectors in features.located():
                place_in = np.empty(len(rows), _PLACE)
                place_in["file"] = files.setdefault(file, len(files))
                place_in["row"] = rows
                places.write(place_in.tobytes())
                codes.write(_sketch(np.asarray(vectors, np.float32), centre).tobytes())
                uids.write(found.tobytes())
                total += len(found)
                progress.advance(len(found))
        if not total:
            raise MissingError(f"{pool.path}: no sample comes with features {name!r}")
        (folder / "centre.bin").write_bytes(centre.tobytes())
        about = {"version": VERSION, "feature": name, "dimension": features.dimension,
                 "dtype": features.dtype.str, "sketches": total, "samples": samples,
                 "files": [[*file, *features.stamp(file)] for file in files]}  # fmt: skip
        write_json(folder / "about.json", about)
    shutil.rmtree(place, ignore_errors=True)
    place.with_name(f"{name}.new").rename(place)
    return place


def _place(pool: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a feature")
    return folder_of(pool.absolute()) / name


def _centre(features: Features, samples: int) -> NDArray[np.float32]:
    """Return the mean of some 65,000 features, picked by their uids."""
    mask = max(1, 1 << max(0, samples // _MEAN_OF).bit_length()) - 1
    total, count = np.zeros(features.dimension), 0
    for relation in (f"SELECT uid FROM samples WHERE (uid & {mask}::UHUGEINT) = 0", "samples"):
        for _, vectors in features.batches(relation):
            wide = np.asarray(vectors, np.float64)
            sound = wide[np.isfinite(wide).all(1)]
            total += sound.sum(0)
            count += len(sound)
        if count:
            break
    return (total / max(count, 1)).astype(np.float32)


def _sketch(vectors: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return one bit per dimension, (n, bytes), padded to whole words of 64 bits."""
    bits = np.packbits(vectors > centre, axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))


class Sketches:
    """The sketches of a feature, mapped from the disk. Raises MissingError if there are none."""

    def __init__(self, pool: Path, name: str) -> None:
        place = _place(pool, name)
        if not place.is_dir():
            raise MissingError(
                f"{pool}: no sketches of {name}; make them with "
                f"'datacomp pool browse {pool} --sketch {name}'"
            )
        about = read_json(place / "about.json", _MAX_ABOUT)
        try:
            version, self.dimension = about["version"], int(about["dimension"])
            self.count, self.samples = int(about["sketches"]), int(about["samples"])
            self._files = [((int(source), str(file)), (int(size), int(time)))
                           for source, file, size, time in about["files"]]  # fmt: skip
            self._dtype = np.dtype(str(about["dtype"]))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{place}: not sketches; remove the folder") from None
        words = -(-self.dimension // 64)
        expected = {
            "codes.bin": self.count * words * 8,
            "uids.bin": self.count * UID_DTYPE.itemsize,
            "places.bin": self.count * _PLACE.itemsize,
            "centre.bin": self.dimension * 4,
        }
        for file, size in expected.items():
            path = place / file
            if version != VERSION or not path.is_file() or path.stat().st_size != size or not size:
                raise DataError(f"{place}: broken sketches; remove the folder and make them again")
        self._codes = np.memmap(place / "codes.bin", np.uint64, "r", shape=(self.count, words))
        self._uids = np.memmap(place / "uids.bin", UID_DTYPE, "r", shape=(self.count,))
        self._places = np.memmap(place / "places.bin", _PLACE, "r", shape=(self.count,))
        self._centre = np.fromfile(place / "centre.bin", np.float32)

    def nearest(
        self, features: Features, vector: NDArray[np.floating[Any]], count: int
    ) -> Neighbours:
        """Find samples by their sketches, then compare the nearest CANDIDATES exactly."""
        wide = np.asarray(vector, np.float32)
        _unit(wide, features)
        if features.dimension != self.dimension:
            raise DataError(
                f"{features.name} has {features.dimension} dimensions, its sketches "
                f"{self.dimension}; make them again"
            )
        code = _sketch(wide[None], self._centre).view(np.uint64)[0]
        near = self._nearest_sketches(code)
        uids = self._uids[near]
        table = pa.table({"high": uids["f0"], "low": uids["f1"]})
        with features.pool.registered("neighbour_candidates", table):
            if self._unchanged(features):
                exactly = self._compared(features, wide, near, count)
            else:  # rows may be other samples' by now
                exactly = nearest(features, vector, count, _CANDIDATE_UIDS)
        return Neighbours(exactly.uids, exactly.cosines, self.count, sketched=True)

    def features(self, pool: Pool, name: str) -> Features:
        """Open the features that these are sketches of, quickly if their files are the same."""
        known = Features(pool, name, (self.dimension, self._dtype))
        return known if self._unchanged(known) else Features(pool, name)

    def _unchanged(self, features: Features) -> bool:
        try:
            return all(features.stamp(file) == stamp for file, stamp in self._files)
        except (DatacompError, KeyError):
            return False

    def _compared(
        self, features: Features, vector: NDArray[np.float32], near: NDArray[np.int64], count: int
    ) -> Neighbours:
        """Compare with the features of some sketches, where they were when those were made."""
        places, uids = self._places[near], self._uids[near]
        wanted, cosines = _unit(vector, features), np.full(len(near), -2, np.float32)
        for number in np.unique(places["file"]).tolist():
            there = np.flatnonzero(places["file"] == number)
            there = there[np.argsort(places["row"][there], kind="stable")]
            vectors = features.take(self._files[number][0], places["row"][there])
            cosines[there] = _cosines(vectors, wanted)
        left = features.pool.table(
            f"SELECT {HALVES} FROM ({_CANDIDATE_UIDS}) SEMI JOIN samples USING (uid)"
        )
        here = np.isin(uids, from_halves(left["high"].to_numpy(), left["low"].to_numpy()))
        best = _best(uids[here], cosines[here], count)
        return Neighbours(*best, len(near))

    def _nearest_sketches(self, code: NDArray[np.uint64]) -> NDArray[np.int64]:
        def part(start: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
            rows = self._codes[start : start + _SLICE]
            distances = np.empty(len(rows), np.uint16)
            for at in range(0, len(rows), 1 << 14):  # what fits into a core's cache
                block = rows[at : at + (1 << 14)]
                distances[at : at + len(block)] = np.bitwise_count(block ^ code).sum(
                    1, dtype=np.uint16
                )
            some = _smallest(distances)
            return distances[some], some + start

        with ThreadPoolExecutor(default_workers()) as threads:
            parts = list(threads.map(part, range(0, self.count, _SLICE)))
        distances = np.concatenate([found for found, _ in parts])
        rows = np.concatenate([found for _, found in parts])
        return np.sort(rows[_smallest(distances)])


def _smallest(distances: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the places of the CANDIDATES smallest, the first ones of equals."""
    if len(distances) <= CANDIDATES:
        return np.arange(len(distances))
    limit = np.partition(distances, CANDIDATES - 1)[CANDIDATES - 1]
    below = np.flatnonzero(distances < limit)
    equal = np.flatnonzero(distances == limit)[: CANDIDATES - len(below)]
    return np.concatenate([below, equal])


def find(pool: Pool, name: str, vector: NDArray[np.floating[Any]], count: int) -> Neighbours:
    """Find the samples most like a vector: by sketches where there are any, else exactly.

    Raises MissingError for a pool of more than EXACT samples without sketches.
    """
    try:
        sketches = Sketches(pool.path, name)
    except MissingError:
        features = Features(pool, name)
        if pool.count() > EXACT:
            raise
        return nearest(features, vector, count)
    return sketches.nearest(sketches.features(pool, name), vector, count)


def features_of(pool: Pool, name: str) -> Features:
    """Open features as ``Features`` does, at once if there are sketches of them."""
    try:
        return Sketches(pool.path, name).features(pool, name)
    except (MissingError, DataError):
        return Features(pool, name)


def iterate_hex(found: Neighbours) -> Iterator[tuple[str, float]]:
    """Yield uid in hex and cosine of each."""
    for uid, cosine in zip(found.uids, found.cosines, strict=True):
        yield f"{int(uid['f0']):016x}{int(uid['f1']):016x}", float(cosine)
