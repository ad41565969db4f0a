"""Devices that models run on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ..errors import RunError, UsageError


def resolve_device(device: str) -> str:
    """Return the device to use; ``auto`` is the GPU if there is one."""
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; there are: auto, cpu, cuda, cuda:N")
    _, _, number = device.partition(":")
    if device != "cpu" and (not has_gpu or int(number or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {device} is not here; use --device cpu")
    return device


@contextlib.contextmanager
def memory_for_batch() -> Iterator[None]:
    """Raise RunError, saying what helps, where a batch does not fit into the device's memory."""
    with _told("use a smaller --batch-size"):
        yield


@contextlib.contextmanager
def memory_for_model() -> Iterator[None]:
    """Raise RunError where a model does not fit into the device's memory."""
    with _told("the model needs one with more, or --device cpu"):
        yield


@contextlib.contextmanager
def _told(advice: str) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError(f"the device is out of memory; {advice}") from None


@contextlib.contextmanager
def exact(device: str) -> Iterator[None]:
    """Keep a GPU from rounding fp32 convolutions to TF32 and from choosing kernels by timing."""
    if device == "cpu":
        yield
        return
    import torch

    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
