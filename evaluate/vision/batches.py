"""Training batches that follow from (seed, step) alone.

Whatever the number of loader workers and of processes, and wherever a run was interrupted, step s
sees the same images under the same augmentation.
"""

from __future__ import annotations

import functools
import os
import random
import resource
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DatacompError, DataError, RunError, UnsafeInputError
from ...pools.images import decode
from ..set_aside import SetAsideLog
from .labelled import LabelledImages
from .recipes import Recipe

if TYPE_CHECKING:
    import torch

MAX_BROKEN = 100
"""So many broken images in a row are no accident."""
SHARED = "/dev/shm"
"""Where Linux keeps what processes share in memory."""
AHEAD = 2
"""Batches that each of torch's loader processes makes ahead."""


def training_batches(
    data: LabelledImages,
    recipe: Recipe,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    seed: int,
    first: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    aside: SetAsideLog | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (images float32 (b, 3, s, s), labels int64 (b,)) from step ``first`` on.

    For an image that does not decode the next sound one stands in; ``aside`` is told. Raises
    RunError for a loader process that is killed.
    """
    import torch
    from torch.utils.data import DataLoader

    dataset = _steps_class()(data, recipe, normalisation, seed, rank, world, aside)
    loader = DataLoader(
        dataset, batch_size=None, sampler=range(first, recipe.steps(len(data))),
        num_workers=workers, generator=torch.Generator(),
    )  # fmt: skip
    try:
        for batch in loader:
            if isinstance(batch, DatacompError):
                raise batch
            yield batch
    except RuntimeError as error:
        text = str(error)
        if text.startswith("DataLoader worker"):
            raise RunError(
                f"a loader process was killed ({text.splitlines()[0].split(': ')[0]}), most "
                "likely for memory; run the same command again with fewer --workers"
            ) from error
        raise


def check_shared_memory(recipe: Recipe, workers: int, world: int = 1) -> None:
    """Raise RunError where loader processes could not hand over the batches of a recipe.

    Found out later it is a process that is killed or, with a limit on the size of files, a
    batch that never comes.
    """
    batch = recipe.batch_size // world * 3 * recipe.image_size**2 * 4
    needed = workers * AHEAD * batch * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    free = shutil.disk_usage(SHARED).free if os.path.isdir(SHARED) else needed
    if workers and limit != resource.RLIM_INFINITY and limit < batch:
        raise RunError(
            f"a batch of {batch / 1e6:,.1f} MB is more than a file may have here (ulimit -f: "
            f"{limit / 1e6:,.1f} MB), and loader processes share it as one; raise the limit or "
            "use --workers 0"
        )
    if needed > free:
        raise RunError(
            f"loader processes share {needed / 1e6:,.1f} MB of batches, but {SHARED} has "
            f"{free / 1e6:,.1f} MB free; enlarge it (docker run --shm-size), or use --workers 0 or "
            "a smaller --batch-size"
        )


def training_transform(
    recipe: Recipe, normalisation: tuple[tuple[float, ...], tuple[float, ...]]
) -> Any:
    """Return timm's training transform of a recipe: PIL RGB to float32 (3, s, s)."""
    from timm.data.transforms_factory import create_transform

    return create_transform(
        recipe.image_size, is_training=True, hflip=recipe.horizontal_flip, color_jitter=0.0,
        auto_augment=recipe.auto_augment, interpolation="bicubic", mean=normalisation[0],
        std=normalisation[1], re_prob=recipe.erasing, re_mode="pixel", scale=recipe.crop_scale,
    )  # fmt: skip


def test_transform(
    size: int, crop: float, normalisation: tuple[tuple[float, ...], tuple[float, ...]]
) -> Any:
    """Return timm's transform for measuring: resize, centre crop, normalise."""
    from timm.data.transforms_factory import create_transform

    return create_transform(
        size, is_training=False, interpolation="bicubic", crop_pct=crop,
        mean=normalisation[0], std=normalisation[1],
    )  # fmt: skip


def epoch_order(samples: int, epoch: int, seed: int, repeats: int) -> np.ndarray:
    """Return the order of an epoch, int64 (samples,): a permutation, each index ``repeats`` times.

    With repeats only the first part of the permutation is seen (DeiT's repeated augmentation,
    after Hoffer et al. 2020).
    """
    order = np.random.default_rng([seed, epoch, 0x0DE1]).permutation(samples)
    return np.repeat(order, repeats)[:samples]


def list_broken(aside: SetAsideLog, data: LabelledImages, index: int, error: DataError) -> None:
    """List an image that does not decode."""
    reason = "image_unsafe" if isinstance(error, UnsafeInputError) else "image_broken"
    aside.add(0, *data.name(index), reason, str(error))


def seed_all(*key: int) -> None:
    """Seed torch's, numpy's and Python's global generators from a key."""
    import torch

    state = np.random.SeedSequence(key).generate_state(2)
    torch.manual_seed(int(state[0]))
    np.random.seed(int(state[1]))
    random.seed(int(state[0]) << 32 | int(state[1]))


@functools.cache
def _steps_class() -> type:
    """Make the dataset class where torch is needed, not where this module is imported."""
    import torch
    from torch.utils.data import Dataset

    class Steps(Dataset):
        """Item s is the batch of step s."""

        def __init__(
            self, data: LabelledImages, recipe: Recipe, normalisation: Any, seed: int,
            rank: int, world: int, aside: SetAsideLog | None,
        ) -> None:  # fmt: skip
            self._data, self._recipe, self._seed = data, recipe, seed
            self._rank, self._world, self._aside = rank, world, aside
            self._transform = training_transform(recipe, normalisation)
            self._order = functools.lru_cache(1)(self._order_of)

        def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor] | DatacompError:
            before = torch.get_rng_state(), np.random.get_state(), random.getstate()
            try:
                return self._batch(step)
            except DatacompError as error:
                return error  # raised by a worker, it would come with torch's traceback
            finally:
                torch.set_rng_state(before[0])
                np.random.set_state(before[1])
                random.setstate(before[2])

        def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
            epoch, first = divmod(step, self._recipe.steps_per_epoch(len(self._data)))
            size = self._recipe.batch_size
            order = self._order(epoch)
            positions = np.arange(first * size, (first + 1) * size) % len(order)
            pictures: list[torch.Tensor] = []
            labels: list[int] = []
            for place in range(self._rank, size, self._world):
                # Seeded image by image: the same batch for any number of processes.
                seed_all(self._seed, step, place, 1)
                index, image = self._sound(int(order[positions[place]]))
                pictures.append(self._transform(image))
                labels.append(int(self._data.label[index]))
            return torch.stack(pictures), torch.tensor(labels)

        def _sound(self, index: int) -> tuple[int, Any]:
            """Return the image at ``index``, or the next one that decodes."""
            for _ in range(MAX_BROKEN):
                data = self._data.read(index)
                try:
                    return index, decode(data)
                except DataError as error:
                    if self._aside is not None:
                        list_broken(self._aside, self._data, index, error)
                    index = (index + 1) % len(self._data)
            raise DataError(f"{self._data.path}: {MAX_BROKEN} images in a row do not decode")

        def _order_of(self, epoch: int) -> np.ndarray:
            return epoch_order(len(self._data), epoch, self._seed, self._recipe.repeats)

    return Steps
