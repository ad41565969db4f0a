"""Training batches that follow from (seed, step) alone.

Whatever the number of loader workers and of processes, and wherever a run was interrupted, step s
sees the same images under the same augmentation.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ...pools.images import decode
from .labelled import LabelledImages
from .recipes import Recipe

if TYPE_CHECKING:
    import torch

MAX_BROKEN = 100
"""So many broken images in a row are no accident."""


def training_batches(
    data: LabelledImages,
    recipe: Recipe,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    seed: int,
    first: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """Yield (images float32 (b, 3, s, s), labels int64 (b,), broken) from step ``first`` on.

    ``broken`` are the indices of images that do not decode; the next sound one stands in.
    """
    import torch
    from torch.utils.data import DataLoader

    dataset = _steps_class()(data, recipe, normalisation, seed, rank, world)
    loader = DataLoader(
        dataset, batch_size=None, sampler=range(first, recipe.steps(len(data))),
        num_workers=workers, generator=torch.Generator(),
    )  # fmt: skip
    return iter(loader)


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
            rank: int, world: int,
        ) -> None:  # fmt: skip
            self._data, self._recipe, self._seed = data, recipe, seed
            self._rank, self._world = rank, world
            self._transform = training_transform(recipe, normalisation)
            self._order = functools.lru_cache(1)(self._order_of)

        def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
            before = torch.get_rng_state(), np.random.get_state(), random.getstate()
            try:
                return self._batch(step)
            finally:
                torch.set_rng_state(before[0])
                np.random.set_state(before[1])
                random.setstate(before[2])

        def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
            epoch, first = divmod(step, self._recipe.steps_per_epoch(len(self._data)))
            size = self._recipe.batch_size
            order = self._order(epoch)
            positions = np.arange(first * size, (first + 1) * size) % len(order)
            pictures: list[torch.Tensor] = []
            labels: list[int] = []
            broken: list[int] = []
            for place in range(self._rank, size, self._world):
                # Seeded image by image: the same batch for any number of processes.
                seed_all(self._seed, step, place, 1)
                index, image = self._sound(int(order[positions[place]]), broken)
                pictures.append(self._transform(image))
                labels.append(int(self._data.label[index]))
            return torch.stack(pictures), torch.tensor(labels), broken

        def _sound(self, index: int, broken: list[int]) -> tuple[int, Any]:
            """Return the image at ``index``, or the next one that decodes."""
            for _ in range(MAX_BROKEN):
                try:
                    return index, decode(self._data.read(index))
                except DataError:
                    broken.append(index)
                    index = (index + 1) % len(self._data)
            raise DataError(f"{self._data.path}: {MAX_BROKEN} images in a row do not decode")

        def _order_of(self, epoch: int) -> np.ndarray:
            return epoch_order(len(self._data), epoch, self._seed, self._recipe.repeats)

    return Steps
