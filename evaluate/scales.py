"""The fixed training recipes: DataComp's five scales, and one for a laptop.

A scale trains for a fixed number of samples seen, whatever the subset's size, so that
datasets and not budgets are compared. Figures of debug to xlarge: "DataComp: In search of the
next generation of multimodal datasets" (arXiv 2304.14108), Table 14.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError, suggest

CHECKPOINTS = 5
"""A run is cut into this many epochs, each ending with a checkpoint."""


@dataclass(frozen=True)
class Scale:
    """A training recipe: ``samples_seen`` and ``batch_size`` are global, over all processes."""

    name: str
    model: str
    samples_seen: int
    batch_size: int
    learning_rate: float
    warmup: int
    beta2: float | None = None
    weight_decay: float = 0.2
    grad_checkpointing: bool = True
    keep_checkpoints: bool = True
    model_config: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return asdict(self)


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "demo", "datacomp-demo", 40_960, 128, 1.5e-3, 50, beta2=0.98,
            grad_checkpointing=False, keep_checkpoints=False,
            model_config="model_configs/datacomp-demo.json",
        ),
        Scale("debug", "ViT-B-32", 128_000, 1024, 1e-4, 500),
        Scale("small", "ViT-B-32", 12_800_000, 4096, 5e-4, 500),
        Scale("medium", "ViT-B-32", 128_000_000, 4096, 5e-4, 500),
        Scale("large", "ViT-B-16", 1_280_000_000, 8192, 5e-4, 500),
        Scale("xlarge", "ViT-L-14", 12_800_000_000, 90_112, 1e-3, 10_000, beta2=0.95),
    )
}  # fmt: skip


def get_scale(name: str, samples_seen: int | None = None) -> Scale:
    """Return a scale by name; with another ``samples_seen`` it is no longer DataComp's."""
    if name not in SCALES:
        raise UsageError(
            f"unknown scale {name!r}{suggest(name, list(SCALES))}; there are: {', '.join(SCALES)}"
        )
    scale = SCALES[name]
    if samples_seen is None:
        return scale
    if samples_seen < scale.batch_size * CHECKPOINTS:
        raise UsageError(
            f"samples_seen is {samples_seen:,}, but scale {name} needs at least "
            f"{scale.batch_size * CHECKPOINTS:,} ({CHECKPOINTS} checkpoints of one batch)"
        )
    return replace(scale, samples_seen=samples_seen)


def model_config_path(scale: Scale) -> Path | None:
    """Return the model's own configuration file, or None for a model open_clip knows."""
    return None if scale.model_config is None else Path(__file__).parent / scale.model_config
