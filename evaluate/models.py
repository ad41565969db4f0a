"""Which model is evaluated: a run's folder, or an architecture and a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..durable import read_json
from ..errors import DataError, MissingError
from ..pools.clip_model import MAX_CONFIG_BYTES, ModelSpec, model_of_run, read_config
from .results import RESULTS
from .vision.backbone import PREFIX, VisionSpec, is_vision_run, spec_of_run

PUBLISHED = "open_clip_config.json"
"""How a checkpoint was trained, beside it, as open_clip publishes both."""


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
    spec = ModelSpec(name if config is None else config.stem, checkpoint, config)
    _check_published(spec)
    return spec


def _check_published(spec: ModelSpec) -> None:
    """Refuse an architecture other than that of the configuration beside the checkpoint.

    Weights do not say everything: with QuickGELU or another activation they fit just as well,
    and score otherwise. Checkpoints of the Hub lie beside what they were trained as.
    """
    file = spec.checkpoint.parent / PUBLISHED
    if not file.is_file() or file == spec.model_config:
        return
    found = read_json(file, MAX_CONFIG_BYTES)
    published = found.get("model_cfg") if isinstance(found, dict) else None
    if not isinstance(published, dict):
        raise DataError(f"{file}: no open_clip configuration (no 'model_cfg' in it)")
    if spec.model_config is not None:
        wanted = read_config(spec.model_config)
    else:
        from ..pools.clip_model import import_open_clip

        wanted = import_open_clip().get_model_config(spec.model)
    if wanted is None:
        return  # an unknown name is told when the model is identified
    for key in sorted(published.keys() | wanted.keys()):
        says, has = published.get(key), wanted.get(key)
        if (says or None) != (has or None):  # absent, null and false are the same to open_clip
            raise DataError(
                f"{spec.checkpoint}: was not trained as {spec.model}: {file.name} beside it has "
                f"{key} {_short(says)}, {spec.model} has {_short(has)}; give the 'model_cfg' of "
                "that file as --model CONFIG.json"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
