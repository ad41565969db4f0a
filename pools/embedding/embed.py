"""Embed a pool: images decoded ahead in threads, one model, whole parts at a time.

The order of the samples and what goes into one batch depend on the files and on ``batch_size``
alone, never on the number of workers, nor on where an earlier run was stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, MissingError, UnsafeInputError, UsageError
from ...progress import Progress
from ..clip_model import ClipModel
from ..parallel import default_workers
from ..pool import Pool
from ..reading import SampleBatch
from ..uids import UidArray
from .drift import SAMPLE, Drift, measure_drift
from .embedded import NO_REASON, Embedded, joined
from .journal import Journal
from .origin import Origin, ShardImages, images_of
from .recipe import Recipe, check_name
from .store import FeatureStore

if TYPE_CHECKING:
    import torch

PART = 16_384
"""About how many samples a part has: a pair of files, and a transaction."""
AHEAD = 2
"""Batches that are decoded ahead of the one the model works on."""
UNREADABLE, BROKEN, UNSAFE = "unreadable", "image_broken", "image_unsafe"
_RETRY = "to_embed_again"


@dataclass
class EmbedReport:
    """What became of a pool's samples.

    ``embedded`` ones were done now, ``known`` before; ``set_aside`` counts those without features
    by reason, tars included; ``without_image`` had none to look at. ``examples`` name some of
    what was wrong with tars. ``drift`` is what merging tokens changes, where they are merged.
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
) -> EmbedReport:
    """Compute what is missing of the features ``NAME_img`` and ``NAME_txt`` and their similarity.

    Images are the pool's own and those that were fetched for it, or else those of the tars in
    ``shards``. Features are float16, of length
    one; the similarities become a score of the pool. What cannot be read or decoded is set aside
    under a reason and tried again by the next run.

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
        _Work(store, recipe, identity, device, batch_size, workers).run(
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
    """One run: a model over the batches of an origin."""

    def __init__(
        self, store: FeatureStore, recipe: Recipe, identity: dict[str, Any], device: str,
        batch_size: int, workers: int | None,
    ) -> None:  # fmt: skip
        self._store, self._recipe, self._identity = store, recipe, identity
        self._batch_size = batch_size
        self._workers = workers or default_workers()
        self._journal = Journal(store.folder)
        self._clip = recipe.load(device)

    def run(self, origin: Origin, total: int, again: int, report: EmbedReport) -> None:
        """Embed all batches; those of samples that were set aside before come last."""
        if self._recipe.tome:
            report.drift = self._merge(origin)
        dimension = self._clip.encode_texts([""]).shape[1]
        self._store.declare(self._identity, self._clip.preparation(), dimension)
        with Progress(f"embedding {self._store.name}", total + again) as progress:
            self._embed_all(origin, progress)
            report.without_image = origin.without_image()
            if again:
                self._try_again(origin, progress)
            progress.total = progress.done
        self._journal.clear()

    def _merge(self, origin: Origin) -> Drift | None:
        """Let the model merge tokens; return what that changes on a few samples."""
        from .merging import merge_tokens

        few = origin.some(SAMPLE)
        merged = merge_tokens(self._clip, self._recipe.tome)
        drift = None
        if few is not None:
            with ThreadPoolExecutor(self._workers, "decode") as threads:
                prepared = list(threads.map(self._prepare, few.images))
            seen = [n for n, one in enumerate(prepared) if not isinstance(one, bytes)]
            texts = few.columns["text"].to_pylist()
            drift = measure_drift(
                self._clip, merged, [prepared[n] for n in seen], [texts[n] for n in seen]
            )
        self._clip = merged
        return drift

    def _embed_all(self, origin: Origin, progress: Progress) -> None:
        number = self._store.next_part()
        per_part = max(1, PART // self._batch_size)
        done: list[Embedded] = []
        for batch in self._embedded(origin.batches(self._batch_size), per_part):
            done.append(batch)
            progress.advance(len(batch.uids))
            if len(done) == per_part:
                self._commit(number, done)
                number, done = number + 1, []
        if done:
            self._commit(number, done)

    def _commit(self, number: int, done: list[Embedded]) -> None:
        self._store.commit(number, joined(done))
        self._journal.clear()

    def _try_again(self, origin: Origin, progress: Progress) -> None:
        """Embed what could not be read or decoded before, if it can be now."""
        origin.begin(f"SELECT uid FROM {_RETRY}")
        done: list[Embedded] = []
        per_part = max(1, PART // self._batch_size)
        for batch in self._embedded(origin.batches(self._batch_size), None):
            progress.advance(len(batch.uids))
            used = batch.used
            if used.any():
                done.append(
                    Embedded(batch.uids[used], batch.reasons[used], batch.images, batch.texts,
                             batch.scores)
                )  # fmt: skip
            if len(done) == per_part:
                self._store.commit(self._store.next_part(), joined(done))
                done = []
        if done:
            self._store.commit(self._store.next_part(), joined(done))

    def _embedded(self, batches: Iterator[SampleBatch], per_part: int | None) -> Iterator[Embedded]:
        """Yield each batch embedded, from the journal where it has that of an unfinished part."""
        for place, batch, prepared in self._prepared(batches, per_part):
            if isinstance(prepared, Embedded):
                yield prepared
                continue
            found = self._embed(batch, [one.result() for one in prepared])
            if per_part is not None:
                self._journal.keep(place, found)
            yield found

    def _prepared(
        self, batches: Iterator[SampleBatch], per_part: int | None
    ) -> Iterator[tuple[int, SampleBatch, Embedded | list[Future[torch.Tensor | bytes]]]]:
        """Yield batches whose images are being decoded, some of them ahead."""
        ahead: deque[tuple[int, SampleBatch, Any]] = deque()
        with ThreadPoolExecutor(self._workers, "decode") as threads:
            try:
                for number, batch in enumerate(batches):
                    place = number % per_part if per_part else number
                    known = self._journal.find(place, batch.uids) if per_part else None
                    work = known or [threads.submit(self._prepare, one) for one in batch.images]
                    ahead.append((place, batch, work))
                    if len(ahead) > AHEAD:
                        yield ahead.popleft()
                while ahead:
                    yield ahead.popleft()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, image: bytes | None) -> torch.Tensor | bytes:
        """Return an image as the model takes it, or why that cannot be."""
        if image is None:
            return UNREADABLE.encode()
        try:
            return self._clip.prepare(image)
        except UnsafeInputError:
            return UNSAFE.encode()
        except DataError:
            return BROKEN.encode()

    def _embed(self, batch: SampleBatch, prepared: list[torch.Tensor | bytes]) -> Embedded:
        reasons = np.array(
            [one if isinstance(one, bytes) else NO_REASON for one in prepared], "S16"
        )
        seen = [n for n, one in enumerate(prepared) if not isinstance(one, bytes)]
        if not seen:
            return _nothing(batch.uids, reasons)
        texts = batch.columns["text"].to_pylist()
        images, captions = embed_pairs(
            self._clip, [prepared[n] for n in seen], [texts[n] or "" for n in seen]
        )
        scores = np.einsum("nd,nd->n", images, captions).astype(np.float32)
        return Embedded(
            batch.uids, reasons, images.astype(np.float16), captions.astype(np.float16), scores
        )


def embed_pairs(
    clip: ClipModel, images: list[Any], texts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of prepared images and of captions, each (n, d) of float32."""
    return clip.encode_tensors(images), clip.encode_texts(texts, len(texts))


def _nothing(uids: UidArray, reasons: np.ndarray) -> Embedded:
    none = np.empty((0, 0), np.float16)
    return Embedded(uids, reasons, none, none, np.empty(0, np.float32))
