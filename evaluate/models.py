"""Which model is evaluated: a run's directory, or an architecture and a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingError, UnsafeInputError
from ..pools.clip_model import ClipModel, model_identity

INFO = "info.json"
RESULTS = "eval_results.jsonl"
MAX_INFO_BYTES = 16 << 20


@dataclass(frozen=True)
class ModelSpec:
    """An architecture (open_clip's name, or a configuration file) and its weights."""

    model: str
    checkpoint: Path
    model_config: Path | None = None

    def identity(self, precision: str = "fp32") -> dict[str, Any]:
        """Return what names the model for good; reads the checkpoint's bytes once."""
        return model_identity(self.model, self.checkpoint, self.model_config, precision)

    def load(self, device: str = "auto", precision: str = "fp32") -> ClipModel:
        """Load the model; see :meth:`ClipModel.load` for the errors."""
        return ClipModel.load(self.model, self.checkpoint, self.model_config, device, precision)


@dataclass(frozen=True)
class RunInfo:
    """A training run's directory: its model, and ``info`` as it was recorded."""

    path: Path
    spec: ModelSpec
    image_size: int | None
    info: dict[str, Any]

    @property
    def results(self) -> Path:
        """Return the file that holds the run's results."""
        return self.path / RESULTS


def load_run(path: Path) -> RunInfo:
    """Read a run's ``info.json``; every path in it must stay inside the run.

    Raises MissingError for an absent or unfinished run, DataError for a broken one and
    UnsafeInputError for paths that leave it.
    """
    file = path / INFO
    if not file.is_file():
        raise MissingError(f"no run at {path}: {INFO} is not there")
    if file.stat().st_size > MAX_INFO_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_INFO_BYTES:,} bytes")
    try:
        info = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {error}") from None
    if not isinstance(info, dict):
        raise DataError(f"{file}: expected an object")
    if not info.get("checkpoint"):
        raise MissingError(f"{file}: names no checkpoint; finish the training first")
    model = info.get("model")
    if not isinstance(model, str) or not model:
        raise DataError(f"{file}: model is {model!r}, expected a name")
    checkpoint = _inside(path, info["checkpoint"], file, "checkpoint")
    config = info.get("model_config")
    config = _inside(path, config, file, "model_config") if config is not None else None
    size = info.get("image_size")
    spec = ModelSpec(model, checkpoint, config)
    return RunInfo(path, spec, size if isinstance(size, int) else None, info)


def resolve_model(run_or_name: str | Path, checkpoint: Path | None = None) -> ModelSpec:
    """Return the model of a run's directory, or of NAME_OR_CONFIG.json and a checkpoint."""
    if checkpoint is None:
        path = Path(run_or_name)
        if not path.is_dir():
            raise MissingError(
                f"no run at {path}; give a run's directory, or --model with --checkpoint"
            )
        return load_run(path).spec
    if not str(run_or_name).endswith(".json"):
        return ModelSpec(str(run_or_name), checkpoint)
    config = Path(run_or_name)
    return ModelSpec(config.stem, checkpoint, config)


def load_model(
    run_or_name: str | Path,
    checkpoint: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> ClipModel:
    """Load the model of a run, or of NAME_OR_CONFIG.json and a checkpoint."""
    return resolve_model(run_or_name, checkpoint).load(device, precision)


def _inside(root: Path, name: Any, file: Path, key: str) -> Path:
    if not isinstance(name, str) or "\0" in name:
        raise DataError(f"{file}: {key} is {name!r}, expected a path inside the run")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise UnsafeInputError(f"{file}: {key} {name[:200]!r} leaves the run's directory")
    return path
