"""Which model is evaluated: a run's folder, or an architecture and a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingError
from ..pools.clip_model import ModelSpec
from ..pools.clip_runs import model_of_run
from .results import RESULTS
from .vision.backbone import PREFIX, VisionSpec, is_vision_run, spec_of_run


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its model."""

    path: Path
    spec: ModelSpec

    @property
    def results(self) -> Path:
        """Return the file that holds the run's results."""
        return self.path / RESULTS


def load_run(path: Path | str) -> Run:
    """Return a finished run; see :func:`model_of_run` for the errors."""
    return Run(Path(path), model_of_run(Path(path)))


def resolve_model(
    run_or_name: str | Path, checkpoint: Path | None = None
) -> ModelSpec | VisionSpec:
    """Return the model of a run's folder, or of a name and a checkpoint.

    A name is open_clip's, a configuration file (.json), or ``timm:NAME``.
    """
    name = str(run_or_name)
    if checkpoint is None:
        path = Path(run_or_name)
        if not path.is_dir():
            raise MissingError(
                f"no run at {path}; give a run's directory, or --model with --checkpoint"
            )
        return spec_of_run(path) if is_vision_run(path) else load_run(path).spec
    if name.startswith(PREFIX):
        return VisionSpec(name.removeprefix(PREFIX), checkpoint)
    config = Path(run_or_name) if name.endswith(".json") else None
    return ModelSpec(name if config is None else config.stem, checkpoint, config)
