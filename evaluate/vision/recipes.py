"""The training recipes of vision encoders, as data.

``deit`` is the one published with VisualAtom and "Replacing Labeled Real-Image Datasets with
Auto-Generated Contours" (Takashima et al. 2023, Kataoka et al. 2022), itself DeiT's; ``demo``
trains a small ViT on two CPU cores in minutes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...errors import UsageError, suggest


@dataclass(frozen=True)
class Recipe:
    """How an encoder is trained. Batch sizes are global, over all processes.

    ``model`` is a timm name and ``model_args`` what differs from it. ``repeats`` is DeiT's
    repeated augmentation: each image of a batch occurs that many times, and an epoch sees a
    correspondingly smaller part of the data. Learning rates rise linearly over the warm-up and
    fall along a cosine, per step.
    """

    name: str
    model: str
    image_size: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup_epochs: int
    warmup_learning_rate: float = 1e-6
    min_learning_rate: float = 1e-5
    model_args: dict[str, int] = field(default_factory=dict)
    drop_path: float = 0.1
    smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    erasing: float = 0.25
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    horizontal_flip: float = 0.0
    repeats: int = 1
    test_crop: float = 0.9

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return {**asdict(self), "crop_scale": list(self.crop_scale)}

    def steps(self, samples: int) -> int:
        """Return how many optimiser steps the whole training of ``samples`` images takes."""
        return self.epochs * self.steps_per_epoch(samples)

    def steps_per_epoch(self, samples: int) -> int:
        """Return the steps of one epoch; only whole batches are used, at least one."""
        return max(1, samples // self.batch_size)

    def learning_rate_at(self, step: int, samples: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine to the minimum."""
        warmup = self.warmup_epochs * self.steps_per_epoch(samples)
        if step < warmup:
            rise = self.learning_rate - self.warmup_learning_rate
            return self.warmup_learning_rate + rise * step / warmup
        done = (step - warmup) / max(1, self.steps(samples) - warmup)
        floor = min(self.min_learning_rate, self.learning_rate)
        return floor + (self.learning_rate - floor) * (1 + math.cos(math.pi * done)) / 2


_DEMO_VIT = {"patch_size": 8, "depth": 6, "embed_dim": 128, "num_heads": 4}

PRETRAINING = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "deit", "deit_tiny_patch16_224", 224, epochs=300, batch_size=256,
            optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_epochs=5, repeats=3,
        ),
        Recipe(
            "demo", "vit_tiny_patch16_224", 32, epochs=15, batch_size=128,
            optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_epochs=1,
            model_args=_DEMO_VIT, drop_path=0.0, mixup=0.0, cutmix=0.0, erasing=0.0,
            auto_augment=None, crop_scale=(0.5, 1.0), test_crop=1.0,
        ),
    )
}  # fmt: skip

FINETUNING = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "deit", "deit_tiny_patch16_224", 224, epochs=1000, batch_size=768,
            optimizer="sgd", learning_rate=0.01, weight_decay=1e-4, warmup_epochs=10,
            horizontal_flip=0.5,
        ),
        Recipe(
            "demo", "vit_tiny_patch16_224", 32, epochs=60, batch_size=64,
            optimizer="adamw", learning_rate=5e-4, weight_decay=0.05, warmup_epochs=5,
            model_args=_DEMO_VIT, drop_path=0.0, mixup=0.0, cutmix=0.0, erasing=0.0,
            auto_augment=None, crop_scale=(0.7, 1.0), test_crop=1.0,
        ),
    )
}  # fmt: skip


def get_recipe(recipes: dict[str, Recipe], name: str, **changes: Any) -> Recipe:
    """Return a recipe by name with ``changes`` (None: as it is); checks that they make sense."""
    if name not in recipes:
        raise UsageError(
            f"unknown recipe {name!r}{suggest(name, list(recipes))}; "
            f"there are: {', '.join(recipes)}"
        )
    recipe = replace(recipes[name], **{k: v for k, v in changes.items() if v is not None})
    for key in ("epochs", "batch_size", "image_size"):
        if getattr(recipe, key) < 1:
            raise UsageError(f"{key} is {getattr(recipe, key)}, expected at least 1")
    if not 0 < recipe.learning_rate < math.inf:
        raise UsageError(f"learning_rate is {recipe.learning_rate}, expected a positive number")
    if recipe.mixup and recipe.batch_size % 2:
        raise UsageError(f"batch_size is {recipe.batch_size}; mixing images needs an even one")
    return recipe
