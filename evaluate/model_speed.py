"""How many samples a second a scale's model trains on, its batches being there already."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import RunError, UsageError
from ..pools.devices import resolve_device
from .scales import Scale, model_config_path
from .training import PRECISIONS

BATCHES = {"cpu": 8, "cuda": 256}
"""Samples of a step: enough to keep a device busy, and few enough for most of them."""
_SLOW = 5


@dataclass(frozen=True)
class ModelSpeed:
    """Samples a second of whole training steps: forward, loss, backward, update."""

    model: str
    device: str
    precision: str
    batch: int
    image_size: int
    samples: float


def image_size(scale: Scale) -> int:
    """Return the side in pixels of the images that a scale's model takes."""
    return int(_config(scale)["vision_cfg"]["image_size"])


def measure_model(
    scale: Scale, device: str = "auto", precision: str | None = None, seconds: float = 1.0
) -> ModelSpeed:
    """Train a scale's model on random samples for ``seconds``, after a step to warm up.

    The steps are those of open_clip's trainer with the scale's recipe, on one device. Raises
    UsageError for a device or precision that is not there, RunError if memory does not suffice.
    """
    import torch

    device = resolve_device(device)
    precision = precision or ("amp" if device.startswith("cuda") else "fp32")
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}, expected one of: {', '.join(PRECISIONS)}")
    batch = BATCHES[device.partition(":")[0]]
    try:
        samples = _steps(scale, device, precision, batch, seconds)
    except torch.OutOfMemoryError:
        raise RunError(
            f"{device} has no room for {batch} samples of {scale.model}; choose another --scale"
        ) from None
    return ModelSpeed(scale.model, device, precision, batch, image_size(scale), samples)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning that a model which is to be trained has no weights yet."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _config(scale: Scale) -> dict[str, Any]:
    import open_clip

    path = model_config_path(scale)
    if path is not None:
        open_clip.add_model_config(path)
    config = open_clip.get_model_config(scale.model)
    assert config is not None, scale.model
    return config


def _steps(scale: Scale, device: str, precision: str, batch: int, seconds: float) -> float:
    """Return how many samples went through training in a second."""
    import open_clip
    import torch
    from open_clip_train.precision import get_autocast

    config = _config(scale)
    side, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    with _quiet():
        model: Any = open_clip.create_model(scale.model, precision=precision, device=device)
    model.train()
    if scale.grad_checkpointing:
        model.set_grad_checkpointing()
    loss = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=scale.learning_rate, weight_decay=scale.weight_decay
    )
    scaler = torch.amp.GradScaler(device) if precision == "amp" and device != "cpu" else None
    autocast: Any = get_autocast(precision, device_type=device.partition(":")[0])
    dtype = open_clip.get_input_dtype(precision)
    images = torch.rand(batch, 3, side, side, device=device, dtype=dtype)
    texts = torch.randint(1, config["text_cfg"]["vocab_size"], (batch, length), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            found = model(images, texts)
            image, text, scale_of_logits = found[:3]
            total = loss(image, text, scale_of_logits)
        if scaler is None:
            total.backward()
            optimizer.step()
        else:
            scaler.scale(total).backward()
            scaler.step(optimizer)
            scaler.update()
        if device != "cpu":
            torch.cuda.synchronize(device)

    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    if first > _SLOW * seconds:  # what is slow in the first step is the step
        return batch / first
    done, started = 0, time.perf_counter()
    while not done or time.perf_counter() - started < seconds:
        step()
        done += batch
    return done / (time.perf_counter() - started)
