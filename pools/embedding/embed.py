"""Embed a pool: images decoded ahead in threads, whole parts at a time, here or on a cluster.

The order of the samples and what goes into one batch depend on the files and on ``batch_size``
alone, never on who does the work, nor on where an earlier run was stopped.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import MissingError, UsageError
from ...progress import Progress
from ..engine import Engine
from ..parallel import default_workers
from ..pool import Pool
from ..reading import PlacedBatch
from .drift import SAMPLE, Drift
from .embedded import Embedded, joined
from .embedder import ModelAbout, PartWork, embed_part, introduce, introduced
from .journal import Journal, digest_of_batch
from .origin import Origin, ShardImages, images_of
from .recipe import Recipe, check_name
from .store import FeatureStore

PART = 16_384
"""About how many samples a part has: a pair of files, and a transaction."""
_RETRY = "to_embed_again"


@dataclass
class EmbedReport:
    """What became of a pool's samples.

    ``embedded`` ones were done now, ``known`` before; ``set_aside`` counts those without features
    by reason, tars and files of metadata included; ``without_image`` had none to look at.
    ``examples`` name some of what was wrong. ``drift`` is what merging tokens changes, where they
    are merged.
    """

    name: str
    folder: str
    model: str
    weights: str
    precision: str
    embedded: int = 0
    known: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    without_image: int = 0
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0
    drift: Drift | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


def embed_pool(
    pool: Pool,
    recipe: Recipe,
    name: str | None = None,
    *,
    shards: Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    engine: Engine | None = None,
) -> EmbedReport:
    """Compute what is missing of the features ``NAME_img`` and ``NAME_txt`` and their similarity.

    Images are the pool's own and those that were fetched for it, or else those of the tars in
    ``shards``. Features are float16, of length
    one; the similarities become a score of the pool. What cannot be read or decoded is set aside
    under a reason and tried again by the next run. ``workers`` are threads that decode; a
    cluster as ``engine`` embeds whole parts instead, on its GPUs if it has any, and this process
    only writes them down.

    Raises UsageError where features of this name have another provenance, MissingError where
    there is no image at all, and the errors of ``ClipModel.load``.
    """
    if pool.path.is_dir():
        raise UsageError(
            f"{pool.path}: a folder opened as a pool forgets what is computed on it; make a pool: "
            f"'datacomp pool add pool.duckdb {pool.path} --kind commonpool --link'"
        )
    name = check_name(recipe.usual_name() if name is None else name)
    identity = recipe.identity()
    store = FeatureStore(pool, name)
    store.check(identity)
    before = store.state()
    report = EmbedReport(
        name, str(store.folder), identity["model"], identity["weights_sha256"],
        identity["precision"], known=before.embedded,
    )  # fmt: skip
    origin = images_of(pool) if shards is None else ShardImages(pool, shards)
    started = time.monotonic()
    again = _list_again(pool, store)
    done = f"ANTI JOIN {store.rows} USING (uid)" if store.rows else ""
    total = origin.begin(f"SELECT uid FROM samples {done}")
    if not (total or again) and not before.embedded:
        raise MissingError(
            f"{pool.path}: knows no sample by an image at hand; bring the images with 'datacomp "
            "pool fetch', or give the shards that have them with --shards DIR"
        )
    report.without_image = origin.without_image()
    if total or again:
        _Work(store, recipe, identity, device, batch_size, workers, engine).run(
            origin, total, again, report
        )
    after = store.state()
    report.embedded = after.embedded - before.embedded
    report.set_aside = after.set_aside | dict(origin.aside)
    report.examples = [f"{one.item}: {one.reason} {one.detail}" for one in origin.named]
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _list_again(pool: Pool, store: FeatureStore) -> int:
    """List what was set aside before this run: it may be mended by now."""
    if not store.rows:
        return 0
    pool.sql(
        f"CREATE OR REPLACE TEMP TABLE {_RETRY} AS "
        f"SELECT uid FROM {store.rows} WHERE reason IS NOT NULL"
    )
    return pool.scalar(f"SELECT count(*) FROM {_RETRY}")


class _Work:
    """One run: a model over the batches of an origin, here or on the workers of an engine."""

    def __init__(
        self, store: FeatureStore, recipe: Recipe, identity: dict[str, Any], device: str,
        batch_size: int, workers: int | None, engine: Engine | None,
    ) -> None:  # fmt: skip
        self._store, self._recipe, self._identity = store, recipe, identity
        self._device, self._engine = device, engine
        self._batch_size = batch_size
        self._journal = Journal(store.folder)
        self._threads = workers or default_workers()

    def run(self, origin: Origin, total: int, again: int, report: EmbedReport) -> None:
        """Embed all batches; those of samples that were set aside before come last."""
        if self._engine is not None:
            self._engine.require("train", "torch", "open_clip")
            model = self._recipe.model
            self._engine.reach(
                *origin.roots(), model.checkpoint, *filter(None, [model.model_config])
            )
        about = self._introduce(origin)
        report.drift = about.drift
        self._store.declare(self._identity, about.preparation, about.dimension)
        with Progress(f"embedding {self._store.name}", total + again) as progress:
            first = self._store.next_part()
            for number, part in enumerate(self._parts(origin, progress, True), first):
                self._store.commit(number, part)
                self._journal.clear()
            report.without_image = origin.without_image()
            if again:
                self._try_again(origin, progress)
            progress.total = progress.done
        self._journal.clear()

    def _introduce(self, origin: Origin) -> ModelAbout:
        """Return what is to be written down of the model, which a worker loads if there is one."""
        few = origin.some(SAMPLE) if self._recipe.tome else None
        if self._engine is None:
            plain = self._recipe.load(self._device)
            self._embedder, about = introduced(plain, self._threads, self._recipe.tome, few)
            return about
        weights = self._identity["weights_sha256"]
        work = PartWork(self._recipe, weights, self._device, [] if few is None else [few])
        (about,) = self._engine.map(introduce, [work], count=1, gpu=self._device != "cpu")
        return about

    def _try_again(self, origin: Origin, progress: Progress) -> None:
        """Embed what could not be read or decoded before, if it can be now."""
        origin.begin(f"SELECT uid FROM {_RETRY}")
        for part in self._parts(origin, progress, False):
            used = part.used
            if used.any():
                found = Embedded(
                    part.uids[used], part.reasons[used], part.images, part.texts, part.scores
                )
                self._store.commit(self._store.next_part(), found)

    def _parts(self, origin: Origin, progress: Progress, journal: bool) -> Iterator[Embedded]:
        """Yield whole parts, embedded; with a ``journal`` of the one that is at work here."""
        batches = origin.batches(self._batch_size)
        per_part = max(1, PART // self._batch_size)
        if self._engine is not None:
            weights = self._identity["weights_sha256"]
            work = (
                PartWork(self._recipe, weights, self._device, some)
                for some in iter(lambda: list(itertools.islice(batches, per_part)), [])
            )
            for part in self._engine.map(embed_part, work, gpu=self._device != "cpu"):
                progress.advance(len(part.uids))
                yield part
            return
        done: list[Embedded] = []
        for number, batch in enumerate(self._here(batches, per_part if journal else None)):
            done.append(batch)
            progress.advance(len(batch.uids))
            if (number + 1) % per_part == 0:
                yield joined(done)
                done = []
        if done:
            yield joined(done)

    def _here(self, batches: Iterator[PlacedBatch], per_part: int | None) -> Iterator[Embedded]:
        """Yield each batch embedded, from the journal where it has that of an unfinished part."""
        if per_part is None:
            yield from self._embedder.embedded(batches)
            return
        new: dict[int, str] = {}

        def remembered() -> Iterator[PlacedBatch | Embedded]:
            for number, batch in enumerate(batches):
                made_of = digest_of_batch(self._identity, batch)
                found = self._journal.find(number % per_part, made_of)
                if found is None:
                    new[number] = made_of
                yield found or batch

        for number, batch in enumerate(self._embedder.embedded(remembered())):
            if number in new:
                self._journal.keep(number % per_part, batch, new.pop(number))
            yield batch
