"""open_clip's WebDataset loader with every random choice taken from the seed.

The stages are open_clip's, in its order: shards sampled with replacement, a shuffle buffer
of samples, decoding, preprocessing, tokenising, batching. What differs is the source of
randomness: open_clip seeds its shuffle buffer by the clock and keeps its workers'
generators running over epochs, so that no two runs, and no resumed run, are alike. Here each
(seed, epoch, process, worker) has generators of its own.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DataError
from ..pools import tar
from ..progress import Progress
from .data import TrainingData

SHUFFLE_SIZE = 5000
SHUFFLE_INITIAL = 1000
CAPTION_CACHE = 1 << 16
READ_AHEAD = 1 << 20
IMAGES = ("jpg", "png", "jpeg", "webp")


def training_loader(
    data: list[TrainingData], weights: list[float] | None, seed: int, progress: Progress
) -> Callable[..., dict[str, Any]]:
    """Return a function that stands in for ``open_clip_train.main.get_data``."""

    def get_data(
        args: Any, preprocess: tuple[Any, Any], epoch: int = 0, tokenizer: Any = None
    ) -> dict[str, Any]:
        import webdataset as wds
        from open_clip_train.data import DataInfo, SharedEpoch

        shared = SharedEpoch(epoch=epoch)
        workers = max(1, args.workers)
        global_batch = args.batch_size * args.world_size
        batches = math.ceil(math.ceil(args.train_num_samples / global_batch) / workers) * workers
        # Accumulated gradients need whole groups of batches.
        batches = max(1, batches // args.accum_freq) * args.accum_freq
        progress.done = epoch * batches * global_batch
        progress.total = args.epochs * batches * global_batch
        pipeline = _pipeline(data, weights, seed, args, preprocess[0], tokenizer, shared)
        pipeline = pipeline.with_epoch(math.ceil(batches / workers))
        loader = wds.WebLoader(pipeline, batch_size=None, shuffle=False, num_workers=args.workers)
        return {"train": DataInfo(
            dataloader=_Counted(loader, batches, global_batch, progress), shared_epoch=shared
        )}  # fmt: skip

    return get_data


def seeded_epochs(train_one_epoch: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """Wrap open_clip's epoch so that its generators depend on seed, epoch and rank only."""

    def wrapped(model: Any, data: Any, loss: Any, epoch: int, *rest: Any, **kwargs: Any) -> Any:
        import numpy as np
        import torch

        args = rest[4]
        own = random.Random(f"{seed}/{epoch}/{args.rank}").getrandbits(31)
        torch.manual_seed(own)
        np.random.seed(own)
        random.seed(own)
        return train_one_epoch(model, data, loss, epoch, *rest, **kwargs)

    return wrapped


def read_shard(path: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar that have an image and a caption, as WebDataset dictionaries.

    Only these members are read; Python's tarfile would take longer than decoding the images.
    """
    with open(path, "rb", buffering=0) as file:
        window = tar.Window(file.fileno(), READ_AHEAD)
        for sample in tar.samples_in(window, path):
            image = next((e for e in IMAGES if e in sample.members), None)
            if image is None or "txt" not in sample.members:
                continue
            found: dict[str, Any] = {"__key__": sample.key, "__url__": path}
            for extension in (image, "txt"):
                member = sample.members[extension]
                found[extension] = window(member.data, member.size)
            yield found


class _Counted:
    """A loader that says how far it is and offers the two numbers the trainer asks for."""

    def __init__(self, loader: Any, batches: int, batch: int, progress: Progress) -> None:
        self._loader, self._batch, self._progress = loader, batch, progress
        self.num_batches, self.num_samples = batches, batches * batch

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield batch
            self._progress.advance(self._batch)


def _pipeline(
    data: list[TrainingData],
    weights: list[float] | None,
    seed: int,
    args: Any,
    preprocess: Callable[[Any], Any],
    tokenizer: Any,
    shared: Any,
) -> Any:
    import webdataset as wds
    from open_clip_train.data import log_and_continue
    from webdataset.filters import _shuffle

    def generator(purpose: str) -> random.Random:
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        worker = 0 if info is None else info.id
        return random.Random(f"{seed}/{shared.get_value()}/{args.rank}/{worker}/{purpose}")

    class Resampled(wds.PipelineStage):
        """Shards drawn with replacement, as ``--dataset-resampled`` does."""

        def run(self) -> Iterator[dict[str, str]]:
            rng = generator("shards")
            shards = [shard for source in data for shard in source.shards]
            chances = None if weights is None else [
                weight for source, weight in zip(data, weights, strict=True) for _ in source.shards
            ]  # fmt: skip
            while True:
                for shard in rng.choices(shards, weights=chances, k=64):
                    yield {"url": shard}

    class Shuffled(wds.PipelineStage):
        """A shuffle buffer whose generator follows from the seed."""

        def run(self, source: Iterator[Any]) -> Iterator[Any]:
            return _shuffle(source, SHUFFLE_SIZE, SHUFFLE_INITIAL, generator("samples"))

    class Samples(wds.PipelineStage):
        """The samples of each shard; shards without one usable sample are refused, not reread."""

        def run(self, source: Iterator[Any]) -> Iterator[Any]:
            usable = 0
            limit = 64 + 2 * sum(len(each.shards) for each in data)
            for number, shard in enumerate(source):
                if usable == 0 and number > limit:
                    raise DataError(f"{data[0].path}: no sample with an image and a caption found")
                try:
                    for sample in read_shard(shard["url"]):
                        usable += 1
                        yield sample
                except (DataError, OSError) as error:
                    log_and_continue(error)

    @functools.lru_cache(maxsize=CAPTION_CACHE)
    def tokens(text: str) -> Any:
        return tokenizer(text)[0]

    return wds.DataPipeline(
        Resampled(),
        Samples(),
        Shuffled(),
        wds.decode("pilrgb", handler=log_and_continue),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=preprocess, text=tokens),
        wds.to_tuple("image", "text"),
        wds.batched(args.batch_size, partial=False),
    )
