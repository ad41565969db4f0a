"""What a training run is for: to be compared with others, or to filter with.

A run with the objective ``clip`` is one of the benchmark: its recipe is fixed, and it begins with
random weights. A run with the objective ``dfn`` makes a data filtering network (Fang et al., arXiv
2309.17425): a CLIP model that the filter ``dfn`` scores with. The paper trains one with the same
contrastive loss on pairs of high quality, may begin with the weights of another model, and
fine-tunes it on training sets whose captions are class names in templates. So such a run may begin
with any weights of the scale's architecture and learn at another rate, several of them make a
network step by step, and none of them can be submitted to a leaderboard.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError, suggest
from ..pools.clip_model import ModelSpec
from ..pools.clip_runs import model_of_run
from .scales import Scale, model_config_path

BENCHMARK, FILTERING = "clip", "dfn"
OBJECTIVES = (BENCHMARK, FILTERING)


def check_objective(scale: Scale, objective: str, init: ModelSpec | None) -> None:
    """Raise UsageError for what does not go together."""
    if objective not in OBJECTIVES:
        raise UsageError(
            f"unknown objective {objective!r}{suggest(objective, list(OBJECTIVES))}; "
            f"there are: {', '.join(OBJECTIVES)}"
        )
    if init is None:
        return
    if objective != FILTERING:
        raise UsageError(
            "a run that begins with the weights of another cannot be compared with others; "
            f"init needs the objective {FILTERING}"
        )
    if init.model != scale.model:
        raise UsageError(
            f"{init.checkpoint}: weights of {init.model}, scale {scale.name} trains {scale.model}"
        )


def described(objective: str, init: ModelSpec | None) -> dict[str, Any]:
    """Return what the description of a run says of its objective and its first weights."""
    return {"objective": objective, "init": None if init is None else init.identity()}


def check_first_weights(scale: Scale, init: ModelSpec) -> None:
    """Raise DataError if weights do not fit a scale's model, UnsafeInputError if they run code."""
    ModelSpec(scale.model, init.checkpoint, model_config_path(scale)).load("cpu")


def first_weights(path: Path, scale: Scale) -> ModelSpec:
    """Return the model to begin with: a run's, or that of a weights file of the architecture."""
    if path.is_dir():
        return model_of_run(path)
    return ModelSpec(scale.model, path, model_config_path(scale))


def slowed(scale: Scale, objective: str, rate: float | None) -> Scale:
    """Return a scale with another learning rate; raises UsageError in the benchmark."""
    if rate is None:
        return scale
    if objective != FILTERING:
        raise UsageError(
            f"scale {scale.name} learns at {scale.learning_rate:g}; another rate needs the "
            f"objective {FILTERING}"
        )
    if not 0 < rate < math.inf:
        raise UsageError(f"the learning rate is {rate}, expected a positive number")
    return replace(scale, learning_rate=rate)
