"""Where the samples to embed come from: the pool's own images, or shards that hold them.

Both give the samples that are still to do, in an order that depends on the files alone, in
batches of a fixed size. So a run that goes on where another was killed makes the same batches.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from ...errors import DataError, UnsafeInputError
from .. import tar
from ..fetches import FOLDER_KEY
from ..identity import uid_of_sample
from ..pool import Pool
from ..reading import Place, PlacedBatch, iterate_places
from ..sources.base import SetAside, image_member, inside, printable
from ..sources.webdataset import WebDatasetSource, tar_path
from ..uids import from_hex

OF_POOL, OF_TARS = "to_embed_of_pool", "to_embed_of_tars"
"""The temporary tables of what has no features yet."""
SLICE = 4096
"""How many samples of a tar are looked up in the pool at a time."""
_NAMED = 20


class Origin(Protocol):
    """What brings samples with their images.

    What cannot be used, and is no sample of the pool that could be listed there, is counted in
    ``aside`` by reason, and the first of it named in ``named``.
    """

    aside: Counter[str]
    named: list[SetAside]

    def begin(self, wanted: str) -> int:
        """List what to do, those of a SELECT of uids; return how many samples may come."""
        ...

    def batches(self, size: int) -> Iterator[PlacedBatch]:
        """Yield what is to be done: uids, the column ``text``, and where the images lie."""
        ...

    def roots(self) -> list[Path]:
        """Return the folders and files that the images lie in."""
        ...

    def some(self, count: int) -> PlacedBatch | None:
        """Return a few samples of what is to be done, None where there is nothing."""
        ...

    def without_image(self) -> int:
        """Return for how many samples, after all batches, there was no image."""
        ...


class PoolImages:
    """The images whose bytes the pool knows the place of."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.aside: Counter[str] = Counter()
        self.named: list[SetAside] = []

    def begin(self, wanted: str) -> int:
        """List those of the samples that have an image at hand."""
        self._pool.sql(
            f"CREATE OR REPLACE TEMP TABLE {OF_POOL} AS SELECT uid FROM samples "
            f"SEMI JOIN ({wanted}) w USING (uid) WHERE shard IS NOT NULL"
        )
        return self._pool.scalar(f"SELECT count(*) FROM {OF_POOL}")

    def batches(self, size: int) -> Iterator[PlacedBatch]:
        """Yield them in file order; what cannot be read comes without an image."""
        yield from iterate_places(self._pool, OF_POOL, ("text",), True, size)

    def roots(self) -> list[Path]:
        """Return where the pool's sources lie."""
        return list(self._pool.source_paths().values())

    def some(self, count: int) -> PlacedBatch | None:
        """Return samples from all over the pool."""
        few = f"SELECT uid FROM {OF_POOL} ORDER BY uid LIMIT {count}"
        return next(iterate_places(self._pool, few, ("text",), True, count), None)

    def without_image(self) -> int:
        """Return how many samples are known by their URL only."""
        return self._pool.scalar("SELECT count(*) FROM samples WHERE shard IS NULL")


class ShardImages:
    """The images of a folder of tars, each gone through once from beginning to end.

    A sample is known by the uid in its ``.json``, or by its bytes. What is not in the pool, or
    embedded already, is passed over. Captions are the pool's.
    """

    def __init__(self, pool: Pool, folder: Path) -> None:
        self._pool = pool
        self._source = WebDatasetSource(folder)
        self._tars = self._source.tars()
        self.aside: Counter[str] = Counter()
        self.named: list[SetAside] = []

    def begin(self, wanted: str) -> int:
        """List those samples: not all of them need be in the tars."""
        self._pool.sql(
            f"CREATE OR REPLACE TEMP TABLE {OF_TARS} AS SELECT uid, text FROM samples "
            f"SEMI JOIN ({wanted}) w USING (uid)"
        )
        return self.without_image()

    def batches(self, size: int) -> Iterator[PlacedBatch]:
        """Yield the samples in the order of the tars."""
        yield from self._batches(size, take=True)

    def roots(self) -> list[Path]:
        """Return the folder of tars."""
        return [self._source.path]

    def some(self, count: int) -> PlacedBatch | None:
        """Return the first samples of the tars."""
        return next(ShardImages(self._pool, self._source.path)._batches(count, take=False), None)

    def without_image(self) -> int:
        """Return how many samples were not in the tars."""
        return self._pool.scalar(f"SELECT count(*) FROM {OF_TARS}")

    def _batches(self, size: int, take: bool) -> Iterator[PlacedBatch]:
        samples = self._samples(take)
        while some := list(itertools.islice(samples, size)):
            uids, texts, places = zip(*some, strict=True)
            yield PlacedBatch(from_hex(list(uids)), pa.table({"text": list(texts)}), list(places))

    def _samples(self, take: bool) -> Iterator[tuple[str, str, Place]]:
        for name in self._tars:
            path = tar_path(self._source.path, name)
            if not inside(self._source.path, path) or name != printable(name):
                self._set_aside(printable(name), "shard_unsafe", "outside the folder, or ill named")
                continue
            try:
                with path.open("rb", buffering=0) as file:
                    yield from self._of_tar(name, path, file.fileno(), take)
            except UnsafeInputError as error:
                self._set_aside(name, "shard_unsafe", str(error))
            except DataError as error:
                self._set_aside(name, "shard_broken", str(error))
            except OSError as error:
                self._set_aside(name, "shard_unreadable", error.strerror or str(error))

    def _of_tar(
        self, name: str, path: Path, file: int, take: bool
    ) -> Iterator[tuple[str, str, Place]]:
        window = tar.Window(file)
        found: dict[str, tar.Member] = {}
        trouble: DataError | None = None
        samples = tar.samples_in(window, name)
        while True:
            try:
                sample = next(samples, None)
            except DataError as error:  # what stands before the break is whole
                sample, trouble = None, error
            if sample is not None:
                self._note(name, window, sample, found)
            if sample is None or len(found) == SLICE:
                yield from self._placed(str(path), found, take)
                found = {}
            if sample is None:
                break
        if trouble is not None:
            raise trouble

    def _note(
        self, name: str, window: tar.Window, sample: tar.TarSample, found: dict[str, tar.Member]
    ) -> None:
        try:
            uid = uid_of_sample(window, sample)
        except ValueError as error:
            self._set_aside(f"{name}/{sample.key}", str(error), "")
            return
        image = image_member(sample)
        assert image is not None
        found.setdefault(uid, image)

    def _placed(
        self, path: str, found: dict[str, tar.Member], take: bool
    ) -> Iterator[tuple[str, str, Place]]:
        texts = self._wanted(list(found), take)
        for uid, image in found.items():
            if uid in texts:
                yield uid, texts[uid], Place(path, image.data, image.size)

    def _wanted(self, uids: list[str], take: bool) -> dict[str, str]:
        """Return the captions of those uids that are to be done; they are so no longer."""
        records = from_hex(uids)
        table = pa.table({"high": records["f0"], "low": records["f1"]})
        with self._pool.registered("in_tar", table):
            some = "(SELECT (high::UHUGEINT << 64) + low::UHUGEINT AS uid FROM in_tar)"
            rows = self._pool.sql(
                f"SELECT printf('%032x', uid), text FROM {OF_TARS} SEMI JOIN {some} USING (uid)"
            ).fetchall()
            if take and rows:
                self._pool.sql(f"DELETE FROM {OF_TARS} WHERE uid IN {some}")
        return dict(rows)

    def _set_aside(self, item: str, reason: str, detail: str) -> None:
        self.aside[reason] += 1
        if len(self.named) < _NAMED:
            self.named.append(SetAside(item, reason, detail))


class PoolAndFetchedImages:
    """The pool's own images, and then those that were fetched for the other samples."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self._own, self._fetched = PoolImages(pool), ShardImages(pool, folder)
        self.aside, self.named = self._fetched.aside, self._fetched.named

    def begin(self, wanted: str) -> int:
        """List the samples that have an image at hand, and those that may have been fetched."""
        others = f"SELECT uid FROM samples SEMI JOIN ({wanted}) w USING (uid) WHERE shard IS NULL"
        return self._own.begin(wanted) + self._fetched.begin(others)

    def batches(self, size: int) -> Iterator[PlacedBatch]:
        """Yield the ones, then the others."""
        yield from self._own.batches(size)
        yield from self._fetched.batches(size)

    def roots(self) -> list[Path]:
        """Return where both lie."""
        return [*self._own.roots(), *self._fetched.roots()]

    def some(self, count: int) -> PlacedBatch | None:
        """Return some of the ones, or else of the others."""
        return self._own.some(count) or self._fetched.some(count)

    def without_image(self) -> int:
        """Return how many samples have no image, and none was fetched for."""
        return self._fetched.without_image()


def images_of(pool: Pool) -> Origin:
    """Return the images that a pool knows of: its own, and where ``pool fetch`` put others."""
    folder = pool.scalar("SELECT value FROM pool WHERE key = ?", [FOLDER_KEY])
    if folder is None or not any((pool.path.parent / folder).rglob("*.tar")):
        return PoolImages(pool)
    return PoolAndFetchedImages(pool, pool.path.parent / folder)
