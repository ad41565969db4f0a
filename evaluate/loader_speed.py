"""Where training waits: for the disk, the decoders, the augmentation or the model itself.

Each step of the loader is its own code, run for a moment on the shards in question, and includes
the one before; the model's is measured on batches that are there. Files that were read lately
come from memory: the first measurement of a folder tells of its disk, a second one of the memory.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UsageError
from ..pools.images import decode
from ..progress import Progress
from .data import TrainingData, find_shards
from .loader import LANES, Sample, read_shard, training_loader
from .scales import Scale
from .set_aside import FILE, SetAsideLog

if TYPE_CHECKING:
    from .model_speed import ModelSpeed

IMAGE_SIZE = 224
BATCH = 8
BATCHES = 4096


@dataclass(frozen=True)
class LoaderSpeed:
    """Samples a second: of reading alone, of reading and decoding, and of making batches.

    ``batches`` (augmented to ``image_size`` pixels, tokenised) is by number of worker processes,
    0 being the training process itself; empty without the train extra. ``bytes_read`` is what
    reading alone gave, in bytes of images and captions a second. ``model`` is how fast the model
    trains on batches that are there; None where it was not measured.
    """

    read: float
    bytes_read: float
    decode: float
    batches: dict[int, float]
    image_size: int
    model: ModelSpeed | None = None

    @property
    def waits_for(self) -> str:
        """Return what training waits for: reading, decoding, augmentation or the model.

        The loader, with as many workers as make it fastest here, waits for a model that is slower;
        otherwise the model waits for what one process of the loader spends most time on.
        """
        if self.model is not None and self.model.samples < max(self.batches.values()):
            return "model"
        seconds = {"reading": 1 / self.read, "decoding": 1 / self.decode - 1 / self.read}
        if 0 in self.batches:
            seconds["augmentation"] = 1 / self.batches[0] - 1 / self.decode
        return max(seconds, key=lambda step: seconds[step])


def measure_loader(
    shards: Path,
    workers: Sequence[int] = (),
    seconds: float = 1.0,
    scale: Scale | None = None,
    device: str = "auto",
    precision: str | None = None,
) -> LoaderSpeed:
    """Measure every step on a folder of shards, for ``seconds`` each after warming up.

    Batches are made in this process and by each number of ``workers`` (default: 1, 2, 4, up to
    the cores here), of images as the model of ``scale`` takes them (224 px without one). That is
    trained on ``device`` with ``precision``, as ``datacomp train`` would. Raises DataError when
    the shards hold no sample that can be used.
    """
    if seconds <= 0 or any(number < 0 for number in workers):
        raise UsageError("seconds are more than 0, numbers of workers 0 or more")
    data = find_shards(shards)
    has_extra = all(map(importlib.util.find_spec, ("torch", "open_clip_train")))
    counts = sorted({0, *(workers or _powers_of_two())}) if has_extra else []
    model, side = None, IMAGE_SIZE
    with Progress(
        "measuring the loader", 2 + len(counts) + (scale is not None), "steps"
    ) as progress:
        read, bytes_read = _reading(data, seconds)
        progress.advance()
        decoded = _rate((_decodes(sample) for sample in _samples(data)), seconds)
        progress.advance()
        if not decoded:
            raise DataError(f"{shards}: no sample with an image and a caption found")
        if scale is not None and has_extra:
            from .model_speed import measure_model

            model = measure_model(scale, device, precision, seconds)
            side = model.image_size
            progress.advance()
        batches: dict[int, float] = {}
        for count in counts:
            batches[count] = _batches(data, count, seconds, side)
            progress.advance()
    return LoaderSpeed(read, bytes_read, decoded, batches, side, model)


def _powers_of_two() -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [1 << power for power in range(5) if 1 << power <= (cores or 1)]


def _samples(data: TrainingData) -> Iterator[Sample]:
    """Yield the samples of all shards, over and over; ends if there are none."""
    found = True
    while found:
        found = False
        for shard in data.shards:
            for sample in read_shard(shard):
                found = True
                yield sample


def _decodes(sample: Sample) -> bool:
    try:
        decode(sample[1])
    except DataError:
        return False
    return True


def _reading(data: TrainingData, seconds: float) -> tuple[float, float]:
    """Return samples and bytes read in a second."""
    size = 0

    def counted() -> Iterator[int]:
        nonlocal size
        for _, image, caption in _samples(data):
            size += len(image) + len(caption)
            yield 1

    started = time.perf_counter()
    rate = _rate(counted(), seconds)
    return rate, size / (time.perf_counter() - started)


def _rate(work: Iterable[int], seconds: float) -> float:
    """Return how much was done in a second."""
    done, started = 0, time.perf_counter()
    elapsed = 0.0
    for amount in work:
        done += amount
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            break
    return done / elapsed if elapsed else 0.0


def _batches(data: TrainingData, workers: int, seconds: float, image_size: int) -> float:
    """Return the samples a second of whole batches as training gets them."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    args = SimpleNamespace(
        batch_size=BATCH, world_size=1, rank=0, accum_freq=1, epochs=1, workers=workers,
        train_num_samples=BATCH * BATCHES,
    )  # fmt: skip
    augment = image_transform_v2(PreprocessCfg(size=image_size), is_train=True)
    with tempfile.TemporaryDirectory() as folder:
        aside = SetAsideLog(Path(folder) / FILE)
        get_data = training_loader([data], None, 0, None, aside)
        loaded: Any = get_data(args, (augment, None), 0, open_clip.get_tokenizer("ViT-B-32"))
        batches = iter(loaded["train"].dataloader)
        for _ in range(LANES):  # each fills its shuffle buffer first
            next(batches)
        return _rate((len(texts) for _, texts in batches), seconds)
