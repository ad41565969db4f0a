"""Vision encoders: timm models by name, filled from safe checkpoints, embedding images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...durable import digest, sha256_file
from ...errors import DataError, MissingError, UnsafeInputError, UsageError, suggest
from ...pools import images as image_files
from ...pools.checkpoints import read_checkpoint
from ...pools.clip_identity import PRECISIONS
from ...pools.devices import memory_for_batch, memory_for_model, resolve_device
from .batches import test_transform

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

FORMAT = "datacomp-vision-run"
PREFIX = "timm:"
CHECKPOINT = "checkpoint.safetensors"
MAX_INFO_BYTES = 16 << 20
MAX_SIZE = 4096
MODEL_ARGS = {"patch_size": 256, "depth": 200, "embed_dim": 16384, "num_heads": 256}
"""What of an architecture may differ from timm's, and how large it may be."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class VisionSpec:
    """An architecture and its weights; ``model`` is timm's name without a prefix."""

    model: str
    checkpoint: Path
    image_size: int | None = None
    model_args: tuple[tuple[str, int], ...] = ()
    test_crop: float | None = None

    def identity(self, precision: str = "fp32") -> dict[str, Any]:
        """Return what names the encoder for good; reads the checkpoint's bytes once."""
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
        if not self.checkpoint.is_file():
            raise MissingError(f"no checkpoint at {self.checkpoint}")
        check_name(self.model)
        size = self.image_size or _default_size(self.model)
        return {
            "model": PREFIX + self.model,
            "config": digest([self.model, dict(self.model_args), size, self.test_crop]),
            "weights_sha256": sha256_file(self.checkpoint),
            "precision": precision,
            "image_size": size,
        }

    def load(self, device: str = "auto", precision: str = "fp32") -> VisionEncoder:
        """Build the encoder without its head and fill it; every weight must fit."""
        import torch

        identity = self.identity(precision)
        device = resolve_device(device)
        size = identity["image_size"]
        network = build(self.model, 0, size, dict(self.model_args))
        fill(network, self.checkpoint, drop_head=True)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        with memory_for_model():
            network.eval().to(device, dtype)
        crop = self.test_crop or network.pretrained_cfg.get("crop_pct", 0.875)
        transform = test_transform(size, crop, normalisation(network))
        return VisionEncoder(network, transform, device, precision, size, identity)


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded encoder with the same face as a CLIP model's image side."""

    network: torch.nn.Module
    preprocess: Any
    device: str
    precision: str
    image_size: int
    identity: dict[str, Any]

    def prepare(self, image: Image | bytes) -> torch.Tensor:
        """Decode and preprocess one image to a tensor (3, size, size); safe in threads.

        Raises DataError for bytes that are no sound image.
        """
        if isinstance(image, bytes):
            image = image_files.decode(image)
        short, long = sorted(image.size)
        if self.image_size**2 * long // max(short, 1) > image_files.MAX_PIXELS:
            raise UnsafeInputError(f"{image.width} x {image.height} pixels: too narrow to resize")
        return self.preprocess(image)

    def encode_tensors(self, tensors: list[torch.Tensor]) -> np.ndarray:
        """Embed prepared images as one batch: float32 (n, d), each row of length one."""
        import torch

        with memory_for_batch(), torch.inference_mode():
            batch = torch.stack(tensors).to(self.device, next(self.network.parameters()).dtype)
            features = self.network(batch).float()
            features = torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
        if not np.isfinite(features).all():
            raise DataError(
                f"model {self.identity['model']} gives embeddings that are not finite "
                f"in {self.precision}; try --precision fp32"
            )
        return features


def import_timm() -> Any:
    """Return timm, or raise MissingError with the line that installs it."""
    try:
        import timm
    except ImportError:
        raise MissingError(
            "vision encoders need timm, which is not installed: pip install -e '.[train]'"
        ) from None
    return timm


def check_name(model: str) -> None:
    """Raise UsageError unless timm builds ``model`` by itself, without a download."""
    timm = import_timm()
    if ":" in model or "/" in model or not timm.is_model(model):
        raise UsageError(
            f"unknown timm model {model[:80]!r}{suggest(model, timm.list_models())}; "
            f"timm knows {len(timm.list_models()):,}"
        )


def build(
    model: str, classes: int, image_size: int, model_args: dict[str, int], drop_path: float = 0.0
) -> Any:
    """Build a timm model with random weights; ``classes`` 0 leaves out the head.

    Raises UsageError for a model that timm does not know or cannot build this way.
    """
    timm = import_timm()
    check_name(model)
    for key, value in model_args.items():
        if key not in MODEL_ARGS or type(value) is not int or not 1 <= value <= MODEL_ARGS[key]:
            raise UsageError(
                f"model_args: {key} = {value!r}; accepted are "
                + ", ".join(f"{name} up to {most}" for name, most in MODEL_ARGS.items())
            )
    arguments: dict[str, Any] = {**model_args, "num_classes": classes}
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    if image_size != _default_size(model):
        arguments["img_size"] = image_size
    try:
        return timm.create_model(model, pretrained=False, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"timm cannot build {model} with {arguments}: {text}") from None


def _default_size(model: str) -> int:
    config = import_timm().get_pretrained_cfg(model, allow_unregistered=True)
    return int(config.input_size[-1]) if config is not None else 224


def normalisation(network: Any) -> Normalisation:
    """Return mean and standard deviation of the pixels an architecture expects."""
    config = getattr(network, "pretrained_cfg", {})
    half = (0.5, 0.5, 0.5)
    return tuple(config.get("mean", half)), tuple(config.get("std", half))


def head_names(network: Any) -> tuple[str, ...]:
    """Return the names of the classifier's parameters, as timm tells them."""
    names = network.default_cfg.get("classifier", "head")
    return tuple([names] if isinstance(names, str) else names)


def fill(network: Any, checkpoint: Path, drop_head: bool) -> None:
    """Fill a model from a checkpoint; apart from the classifier everything must fit exactly.

    Raises DataError naming the first weight that is missing, unknown or of another shape, and
    UnsafeInputError for a checkpoint that carries code.
    """
    heads = tuple(f"{name}." for name in head_names(network)) if drop_head else ()
    weights = {k: v for k, v in read_checkpoint(checkpoint).items() if not k.startswith(heads)}
    wanted = {k: v for k, v in network.state_dict().items() if not k.startswith(heads)}
    for name, value in wanted.items():
        if name not in weights:
            raise DataError(f"{checkpoint}: is not of this architecture: {name} is missing")
        if weights[name].shape != value.shape:
            raise DataError(
                f"{checkpoint}: is not of this architecture: {name} is "
                f"{tuple(weights[name].shape)}, expected {tuple(value.shape)}"
            )
    unknown = next((name for name in weights if name not in wanted), None)
    if unknown is not None:
        raise DataError(f"{checkpoint}: is not of this architecture: it has {unknown[:80]}")
    network.load_state_dict(weights, strict=False)


def is_vision_run(path: Path) -> bool:
    """Tell whether a folder holds a run of :func:`pretrain` or :func:`finetune`."""
    try:
        return load_info(path).get("format") == FORMAT
    except (DataError, MissingError):
        return False


def load_info(path: Path) -> dict[str, Any]:
    """Read a run's ``info.json``; raises MissingError if absent, DataError if broken."""
    file = path / "info.json"
    if not file.is_file():
        raise MissingError(f"no run at {path}: info.json is not there")
    if file.stat().st_size > MAX_INFO_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_INFO_BYTES:,} bytes")
    try:
        info = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {error}") from None
    if not isinstance(info, dict):
        raise DataError(f"{file}: expected an object")
    return info


def spec_of_run(path: Path) -> VisionSpec:
    """Return the encoder of a finished run; what its ``info.json`` says is checked."""
    info = load_info(path)
    if info.get("format") != FORMAT:
        raise DataError(f"{path}: not a run of 'datacomp pretrain' or 'datacomp finetune'")
    if info.get("status") != "done":
        raise MissingError(f"{path}: the run is not finished; give its command again")
    recipe = info.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    model, size, crop = (recipe.get(key) for key in ("model", "image_size", "test_crop"))
    arguments = recipe.get("model_args")
    if (
        not isinstance(model, str)
        or not isinstance(arguments, dict)
        or type(size) is not int
        or not 1 <= size <= MAX_SIZE
        or not isinstance(crop, int | float)
        or not 0 < crop <= 1
    ):
        raise DataError(f"{path / 'info.json'}: its recipe is not one of this program")
    return VisionSpec(model, path / CHECKPOINT, size, tuple(sorted(arguments.items())), float(crop))
