"""What names a model for good, whatever its files are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..durable import digest, sha256_unchanged
from ..errors import MissingError, UsageError, suggest
from .clip_config import builtin_config, import_open_clip, read_config, side_of
from .clip_settings import check_architecture, preparation, settings_of

PRECISIONS = ("fp32", "bf16", "fp16")


def model_identity(
    model: str, checkpoint: Path, model_config: Path | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Return what names a model for good: model, config, weights_sha256, precision, image_size.

    Costs one read of the checkpoint's bytes; nothing of it is interpreted. Raises DataError where
    what is known of it (see ``clip_settings``) says that it is of another architecture.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision!r}{suggest(precision, list(PRECISIONS))}; "
            f"there are: {', '.join(PRECISIONS)}"
        )
    config = read_config(model_config) if model_config else builtin_config(model)
    if not checkpoint.is_file():
        raise MissingError(f"no checkpoint at {checkpoint}; train the model or give another path")
    weights = sha256_unchanged(checkpoint)
    own = settings_of(checkpoint, lambda: weights)
    if own is not None:
        check_architecture(checkpoint, own, model, config, import_open_clip())
    prepared = preparation(own, model_config)
    return {
        "model": model,
        "config": digest(config),
        "weights_sha256": weights,
        "precision": precision,
        "image_size": side_of(config["vision_cfg"].get("image_size", 224)),
        **({"preprocessing": digest(prepared)} if prepared else {}),
    }
