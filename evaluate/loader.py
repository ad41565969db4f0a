"""The training loader: open_clip's recipe with every random choice taken from the seed.

As in open_clip (``--dataset-resampled``): shards are drawn with replacement, samples pass a
shuffle buffer, images are augmented by the model's own preprocessing, batches are whole. What
differs is the source of randomness. open_clip seeds its shuffle buffer by the clock and lets
its workers' generators run on over epochs, so no two runs, and no resumed run, are alike. Here
each global batch is made of **blocks**, as many as its size asks for, however many processes there
are; block b of every batch comes from a stream of its own. A stream has a fixed number of
**lanes**, each with generators of its own for (seed, block, epoch, lane); batch i comes from lane i
modulo LANES, whichever worker holds the lane. So the batches are the same for any number of
processes and accumulation steps, and for 0, 1, 2, 4 or 8 workers, and a resumed run repeats them.
A process reads the blocks that its share of the batch is in, and no others.
"""

from __future__ import annotations

import functools
import math
import random
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DatacompError, DataError, RunError, UnsafeInputError
from ..pools import tar
from ..pools.clip_model import MAX_TEXT
from ..pools.images import MAX_BYTES, decode
from ..pools.sources.base import caption_of_sample, image_member, values_of_sample
from ..pools.views import find_shard
from ..progress import Progress
from .data import TrainingData
from .set_aside import SetAsideLog

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LANES = 8
BLOCK = 128
"""A global batch is halved until no more samples than this are left: that is its block. So small
that two processes seldom share one, for both have to read it then."""
SHUFFLE_SIZE = 2500
"""Samples in each lane's buffer: eight lanes hold as many as open_clip's four workers. Short
epochs have smaller ones, for every epoch fills them anew."""
SHUFFLE_BATCH = 2 * SHUFFLE_SIZE
"""Samples in the buffers that one global batch is drawn from: many blocks have smaller ones."""
SHUFFLE_LEAST = 64
SHUFFLE_INITIAL = 500
CAPTION_CACHE = 1 << 16
READ_AHEAD = 1 << 20

MAX_BROKEN_IN_A_ROW = 5000
"""So many images that cannot be decoded, one after the other, and the data are no good."""

Sample = tuple[str, bytes, str]
"""Key, encoded image and caption."""
SetAside = Callable[[str, str, str], None]
"""Takes the key (empty for the whole shard), a reason code and what exactly was wrong."""


def training_loader(
    data: list[TrainingData],
    weights: list[float] | None,
    seed: int,
    progress: Progress | None,
    aside: SetAsideLog,
) -> Callable[..., dict[str, Any]]:
    """Return a function that stands in for ``open_clip_train.main.get_data``."""

    def get_data(
        args: Any, preprocess: tuple[Any, Any], epoch: int = 0, tokenizer: Any = None
    ) -> dict[str, Any]:
        from open_clip_train.data import DataInfo, SharedEpoch
        from torch.utils.data import DataLoader

        shared = SharedEpoch(epoch=epoch)
        split = Split(args.batch_size, args.accum_freq, args.rank, args.world_size)
        check_open_files(split, args.workers)
        steps = math.ceil(args.train_num_samples / split.whole)
        if progress is not None:
            progress.resume(epoch * steps * split.whole)
            progress.total = args.epochs * steps * split.whole
        lanes = _Lanes(data, weights, seed, shared, _buffer(split, steps), aside)
        dataset = _batches_class()(lanes, steps, split, preprocess[0], tokenizer)
        loader = DataLoader(dataset, batch_size=None, num_workers=args.workers)
        counted = _Counted(loader, steps * split.parts, split.size * split.world, progress)
        return {"train": DataInfo(dataloader=counted, shared_epoch=shared)}  # pyright: ignore[reportArgumentType]

    return get_data


def block_size(batch: int) -> int:
    """Return the size of the blocks of a global batch.

    >>> block_size(4096), block_size(90112), block_size(96)
    (128, 88, 96)
    """
    while batch > BLOCK and batch % 2 == 0:
        batch //= 2
    return batch


@dataclass(frozen=True)
class Split:
    """How a global batch is split: ``parts`` batches of ``size`` for each process of ``world``."""

    size: int
    parts: int = 1
    rank: int = 0
    world: int = 1

    @property
    def whole(self) -> int:
        """Samples in a global batch."""
        return self.size * self.parts * self.world

    @property
    def block(self) -> int:
        """Samples in a block."""
        return block_size(self.whole)

    def pieces(self, part: int) -> Iterator[tuple[int, slice]]:
        """Yield the blocks, and what of each, that make a batch of this process.

        >>> [(block, piece.start, piece.stop) for block, piece in Split(96, 2, 1, 2).pieces(0)]
        [(2, 0, 96)]
        """
        begin = (self.rank * self.parts + part) * self.size
        end = begin + self.size
        for block in range(begin // self.block, -(-end // self.block)):
            first = block * self.block
            yield block, slice(max(begin - first, 0), min(end - first, self.block))


def check_open_files(split: Split, workers: int) -> None:
    """Let a process hold a shard open for each of its lanes, or raise RunError if it may not."""
    begin, end = (split.size * split.parts * number for number in (split.rank, split.rank + 1))
    blocks = -(-end // split.block) - begin // split.block
    needed = blocks * -(-LANES // max(1, workers)) + 128  # what else is open
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        raise RunError(
            f"a batch of {split.whole:,} on {split.world} processes takes {needed:,} open files in "
            f"each that reads shards, and {hard:,} are allowed (ulimit -Hn); use more processes or "
            "--workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _buffer(split: Split, steps: int) -> int:
    """Return how many samples a lane's buffer holds."""
    most = min(SHUFFLE_SIZE, SHUFFLE_BATCH // (split.whole // split.block))
    return min(max(most, SHUFFLE_LEAST), max(steps * split.block // (4 * LANES), SHUFFLE_LEAST))


def read_shard(path: str, aside: SetAside = lambda *_: None) -> Iterator[Sample]:
    """Yield the samples of a tar that have an image and a caption, as the pool would read them.

    What cannot be used is told to ``aside`` under the pool's reason codes; the samples before
    the place where a tar breaks are used.
    """
    try:
        for key, window, sample in _samples_of(path):
            try:
                found = _read(window, sample)
            except ValueError as error:
                aside(key, str(error), "")
            else:
                yield key, *found
    except UnsafeInputError as error:
        aside("", "shard_unsafe", str(error))
    except DataError as error:
        aside("", "shard_broken", str(error))
    except OSError as error:
        aside("", "shard_unreadable", error.strerror or str(error))


def _samples_of(path: str) -> Iterator[tuple[str, tar.Window, tar.TarSample]]:
    """Yield key, bytes and members of the samples of a tar, or of a virtual shard of a view."""
    virtual = find_shard(path)
    if virtual is not None:
        view, number = virtual
        for found in view.shard(number):
            yield found.key, found.window(), found.found
        return
    with open(path, "rb", buffering=0) as file:
        window = tar.Window(file.fileno(), READ_AHEAD)
        for sample in tar.samples_in(window, path):
            yield sample.key, window, sample


def _read(window: tar.Window, sample: tar.TarSample) -> tuple[bytes, str]:
    """Return image and caption, or raise ValueError with a reason code."""
    image = image_member(sample)
    if image is None:
        raise ValueError("no_image")
    if image.size > MAX_BYTES:
        raise ValueError("image_unsafe")
    data = window(image.data, image.size)
    values = {} if "txt" in sample.members else values_of_sample(window, sample)
    caption = caption_of_sample(window, sample, values)
    if caption is None:
        raise ValueError("no_caption")
    return data, caption


def shuffled(samples: Iterator[T], size: int, rng: random.Random) -> Iterator[T]:
    """Yield from a buffer of ``size`` samples at random; it fills while it gives out already."""
    initial = min(SHUFFLE_INITIAL, size)
    buffer: list[T] = []
    for taken, sample in enumerate(samples):
        buffer.append(sample)
        growing = len(buffer) < size and taken % 2 == 0  # two in for one out
        if len(buffer) < initial or growing:
            continue
        place = rng.randrange(len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        yield buffer.pop()


class _Lanes:
    """Endless streams of samples, each the same whenever (seed, block, epoch, lane) is."""

    def __init__(
        self,
        data: list[TrainingData],
        weights: list[float] | None,
        seed: int,
        epoch: Any,
        buffer: int,
        aside: SetAsideLog,
    ) -> None:
        self._data, self.aside = data, aside
        self._shards = [
            (number, shard) for number, source in enumerate(data) for shard in source.shards
        ]
        self._weights = None if weights is None else [
            weight for source, weight in zip(data, weights, strict=True) for _ in source.shards
        ]  # fmt: skip
        self.where = data[0].path
        self._seed, self._epoch, self._buffer = seed, epoch, buffer

    def generator(self, block: int, purpose: str) -> random.Random:
        """Return the generator of a purpose in the current epoch."""
        return random.Random(f"{self._seed}/{block}/{self._epoch.get_value()}/{purpose}")

    def lane(self, block: int, number: int) -> Iterator[tuple[Sample, SetAside]]:
        """Yield the samples of a lane, shuffled, each with whom to tell if it is broken."""
        rng = self.generator(block, f"lane{number}/samples")
        return shuffled(self._samples(block, number), self._buffer, rng)

    def _samples(self, block: int, number: int) -> Iterator[tuple[Sample, SetAside]]:
        rng = self.generator(block, f"lane{number}/shards")
        barren = 0
        while True:
            source, shard = rng.choices(self._shards, weights=self._weights)[0]
            aside = functools.partial(self.aside.add, source, self._data[source].name(shard))
            found = False
            for sample in read_shard(shard, aside):
                found = True
                yield sample, aside
            barren = 0 if found else barren + 1
            if barren > 64 + 2 * len(self._shards):
                raise DataError(f"{self.where}: no sample with an image and a caption found")


@functools.cache
def _batches_class() -> type:
    """Make the dataset class where torch is needed, not where this module is imported."""
    import torch
    from torch.utils.data import IterableDataset, get_worker_info

    class Batches(IterableDataset):
        """Batches of (images, texts) of one process; each worker makes those of its own lanes."""

        def __init__(
            self, lanes: _Lanes, steps: int, split: Split, preprocess: Any, tokenizer: Any
        ) -> None:
            self._lanes, self._steps, self._split = lanes, steps, split
            self._preprocess, self._tokenizer = preprocess, tokenizer
            self._tokens: Any = None

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor] | DatacompError]:
            info = get_worker_info()
            worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
            # Then the parts of a lane's steps, LANES apart, are all made by one worker.
            lanes = LANES if LANES % workers == 0 else workers
            self._tokens = functools.lru_cache(CAPTION_CACHE)(lambda t: self._tokenizer(t)[0])
            self._lanes.aside.refresh()
            streams: dict[tuple[int, int], Iterator[tuple[Sample, SetAside]]] = {}
            shared: tuple[Any, Any] = None, None  # the last block, where it is not used up
            parts = self._split.parts
            for number in range(worker, self._steps * parts, workers):
                step, part = divmod(number, parts)
                made: list[tuple[torch.Tensor, torch.Tensor]] = []
                try:
                    for block, piece in self._split.pieces(part):
                        if shared[0] != (step, block):
                            place = block, step % lanes
                            if place not in streams:
                                streams[place] = self._lanes.lane(*place)
                            shared = (step, block), self._block(step, block, streams[place])
                        made.append((shared[1][0][piece], shared[1][1][piece]))
                        if piece.stop == self._split.block:
                            shared = None, None
                except DatacompError as error:
                    yield error  # raised by a worker, it would come with torch's traceback
                    return
                yield made[0] if len(made) == 1 else _joined(made)

        def _block(
            self, step: int, block: int, stream: Iterator[tuple[Sample, SetAside]]
        ) -> tuple[torch.Tensor, torch.Tensor]:
            images: list[torch.Tensor] = []
            texts: list[torch.Tensor] = []
            broken = 0
            before, threads = torch.get_rng_state(), torch.get_num_threads()
            # Several threads gain nothing on one small image, and in the training process, on a
            # busy machine, they wait for each other most of the time. Workers have one anyway.
            torch.set_num_threads(1)
            torch.manual_seed(self._lanes.generator(block, f"batch{step}").getrandbits(63))
            try:
                while len(images) < self._split.block:
                    (key, image, text), aside = next(stream)
                    try:
                        images.append(self._preprocess(decode(image)))
                    except DataError as error:
                        unsafe = isinstance(error, UnsafeInputError)
                        aside(key, "image_unsafe" if unsafe else "image_broken", str(error))
                        broken += 1
                        if broken == MAX_BROKEN_IN_A_ROW:
                            raise DataError(
                                f"{self._lanes.where}: {broken:,} images in a row cannot be decoded"
                            ) from None
                        continue
                    texts.append(self._tokens(text[:MAX_TEXT]))
                    broken = 0
            finally:
                torch.set_rng_state(before)
                torch.set_num_threads(threads)
            return torch.stack(images), torch.stack(texts)

    def _joined(
        made: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([images for images, _ in made]), torch.cat([texts for _, texts in made])

    return Batches


class _Counted:
    """A loader that says how far it is and offers the two numbers the trainer asks for."""

    def __init__(self, loader: Any, batches: int, batch: int, progress: Progress | None) -> None:
        self._loader, self._batch, self._progress = loader, batch, progress
        self.num_batches, self.num_samples = batches, batches * batch

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            if isinstance(batch, DatacompError):
                raise batch
            yield batch
            if self._progress is not None:
                self._progress.advance(self._batch)
