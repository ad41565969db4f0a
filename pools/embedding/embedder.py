"""A model that embeds batches of samples: in this process, or a part of a pool in a worker."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, UnsafeInputError
from ..clip_model import ClipModel
from ..reading import PlacedBatch, PlaceReader
from .drift import Drift, measure_drift
from .embedded import NO_REASON, Embedded, joined
from .merging import merge_tokens
from .recipe import Recipe

if TYPE_CHECKING:
    import torch

AHEAD = 2
"""Batches that are decoded ahead of the one the model works on."""
UNREADABLE, BROKEN, UNSAFE = "unreadable", "image_broken", "image_unsafe"


class Embedder:
    """A model, and the threads that decode images for it.

    On processors as many batches are embedded at the same time, each by one thread: sums of
    several threads depend on their number, and so would the last digits of features.
    """

    def __init__(self, clip: ClipModel, threads: int) -> None:
        self.clip, self.threads = clip, threads

    def embedded(self, batches: Iterable[PlacedBatch | Embedded]) -> Iterator[Embedded]:
        """Yield each batch embedded, in order; what is embedded already passes through."""
        ahead: deque[Embedded | Future[Embedded]] = deque()
        alone = self.clip.device != "cpu"  # one batch after the other, on a GPU
        models = ThreadPoolExecutor(
            1 if alone else self.threads, "embed", None if alone else _one_thread
        )
        decoders = ThreadPoolExecutor(self.threads, "decode")
        most = AHEAD + (1 if alone else self.threads)
        with PlaceReader() as reader:
            try:
                for batch in batches:
                    if isinstance(batch, PlacedBatch):
                        read = (reader.read(place) for place in batch.places)
                        decoded = [decoders.submit(self.prepare, data) for data in read]
                        ahead.append(models.submit(self._embed, batch, decoded))
                    else:
                        ahead.append(batch)
                    if len(ahead) == most:
                        yield _done(ahead.popleft())
                while ahead:
                    yield _done(ahead.popleft())
            finally:
                for threads in (decoders, models):
                    threads.shutdown(wait=False, cancel_futures=True)
                models.shutdown()

    def prepare(self, image: bytes | None) -> torch.Tensor | bytes:
        """Return an image as the model takes it, or why that cannot be."""
        if image is None:
            return UNREADABLE.encode()
        try:
            return self.clip.prepare(image)
        except UnsafeInputError:
            return UNSAFE.encode()
        except DataError:
            return BROKEN.encode()

    def _embed(self, batch: PlacedBatch, decoded: list[Future[torch.Tensor | bytes]]) -> Embedded:
        prepared = [one.result() for one in decoded]
        reasons = np.array(
            [one if isinstance(one, bytes) else NO_REASON for one in prepared], "S16"
        )
        seen = [n for n, one in enumerate(prepared) if not isinstance(one, bytes)]
        if not seen:
            none = np.empty((0, 0), np.float16)
            return Embedded(batch.uids, reasons, none, none, np.empty(0, np.float32))
        texts = batch.columns["text"].to_pylist()
        images, captions = embed_pairs(
            self.clip, [prepared[n] for n in seen], [texts[n] or "" for n in seen]
        )
        scores = np.einsum("nd,nd->n", images, captions).astype(np.float32)
        return Embedded(
            batch.uids, reasons, images.astype(np.float16), captions.astype(np.float16), scores
        )


def _done(batch: Embedded | Future[Embedded]) -> Embedded:
    return batch if isinstance(batch, Embedded) else batch.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def embed_pairs(
    clip: ClipModel, images: list[Any], texts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of prepared images and of captions, each (n, d) of float32."""
    return clip.encode_tensors(images), clip.encode_texts(texts, len(texts))


@dataclass(frozen=True)
class PartWork:
    """The samples of a part, batch by batch, and how a worker is to embed them.

    ``weights`` is the digest of the recipe's.
    """

    recipe: Recipe
    weights: str
    device: str
    batches: list[PlacedBatch]


@dataclass(frozen=True)
class ModelAbout:
    """How a model prepares images and captions, how long its features are, what merging changes."""

    preparation: dict[str, Any]
    dimension: int
    drift: Drift | None


def embed_part(work: PartWork) -> Embedded:
    """Embed a part in a worker, which has one processor, or a GPU and its share of processors."""
    clip = model_of_worker(work.recipe, work.weights, work.device)
    if work.recipe.tome:
        clip = merge_tokens(clip, work.recipe.tome)
    embedder = Embedder(clip, threads_of(clip))
    return joined(list(embedder.embedded(work.batches)))


def introduce(work: PartWork) -> ModelAbout:
    """Tell about the model in a worker, merging tokens on a few samples if it is to merge any."""
    clip = model_of_worker(work.recipe, work.weights, work.device)
    few = work.batches[0] if work.batches else None
    return introduced(clip, threads_of(clip), work.recipe.tome, few)[1]


def introduced(
    clip: ClipModel, threads: int, tome: int, few: PlacedBatch | None
) -> tuple[Embedder, ModelAbout]:
    """Return what embeds with a model, merging ``tome`` tokens a layer, and what it is."""
    embedder, drift = Embedder(clip, threads), None
    if tome:
        merged = merge_tokens(clip, tome)
        if few is not None:
            drift = _drift(embedder, merged, few)
        embedder = Embedder(merged, threads)
    dimension = embedder.clip.encode_texts([""]).shape[1]
    return embedder, ModelAbout(embedder.clip.preparation(), dimension, drift)


def _drift(plain: Embedder, merged: ClipModel, few: PlacedBatch) -> Drift | None:
    with PlaceReader() as reader, ThreadPoolExecutor(plain.threads, "decode") as pool:
        prepared = list(pool.map(plain.prepare, [reader.read(place) for place in few.places]))
    seen = [n for n, one in enumerate(prepared) if not isinstance(one, bytes)]
    texts = few.columns["text"].to_pylist()
    return measure_drift(plain.clip, merged, [prepared[n] for n in seen], [texts[n] for n in seen])


@functools.lru_cache(maxsize=1)
def model_of_worker(recipe: Recipe, weights: str, device: str) -> ClipModel:
    """Load the model, once for all that this worker gets; tokens are not merged."""
    del weights  # only tells two files of one name apart
    return recipe.load(device)


def threads_of(clip: ClipModel) -> int:
    """Return a worker's threads: one on its processor, or its GPU's share of all processors."""
    import torch

    gpus = torch.cuda.device_count() if clip.device.startswith("cuda") else 0
    return max(1, (os.cpu_count() or 1) // gpus) if gpus else 1
