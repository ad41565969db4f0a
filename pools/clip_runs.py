"""Which model is meant: that of a run, of a folder of the Hub's, of a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..durable import read_json
from ..errors import DataError, MissingError, UnsafeInputError, UsageError
from .clip_model import ModelSpec
from .clip_settings import FILE as OWN_CONFIG
from .clip_settings import WEIGHTS

RUN_INFO = "info.json"
"""The description of a run, in its folder."""
MAX_RUN_INFO_BYTES = 16 << 20


def model_of_run(path: Path) -> ModelSpec:
    """Return the model of a finished run, read from the ``info.json`` in its folder.

    Raises MissingError for what is no run or not finished, DataError for a broken description
    and UnsafeInputError for paths that leave the run.
    """
    file = path / RUN_INFO
    info = read_run(path)
    if info.get("status") != "done":
        raise MissingError(
            f"{path}: the run is not finished; give the same 'datacomp train' command again first"
        )
    model = info.get("model")
    if not isinstance(model, str) or not model:
        raise DataError(f"{file}: model is {model!r}, expected a name")
    checkpoint = _inside(path, info.get("checkpoint"), file, "checkpoint")
    config = info.get("model_config")
    return ModelSpec(
        model, checkpoint, None if config is None else _inside(path, config, file, "model_config")
    )


def model_of(checkpoint: Path, model: str | None = None, use: str = "") -> ModelSpec:
    """Return the model of a weights file, of a folder of the Hub's, or of a run's folder.

    ``model`` is open_clip's name or a configuration file (.json); it need not be given for a run,
    nor where the weights' own configuration lies beside them. ``use`` begins what errors say.
    """
    said = f"{use}: " if use else ""
    if checkpoint.is_dir():
        inside = next((file for file in map(checkpoint.joinpath, WEIGHTS) if file.is_file()), None)
        if inside is None:
            return model_of_run(checkpoint)
        checkpoint = inside
    if not checkpoint.is_file():
        raise MissingError(f"{said}no checkpoint at {checkpoint}")
    if model is None:
        own = checkpoint.parent / OWN_CONFIG
        if not own.is_file():
            raise UsageError(
                f"{said}the architecture of {checkpoint} is not known: name its model (no "
                f"{OWN_CONFIG} lies beside it)"
            )
        return ModelSpec(checkpoint.resolve().parent.name, checkpoint, own)
    if model.endswith(".json"):
        return ModelSpec(Path(model).stem, checkpoint, Path(model))
    return ModelSpec(model, checkpoint)


def read_run(path: Path) -> dict[str, Any]:
    """Return what the ``info.json`` in the folder of a run says; nothing of it is checked.

    Raises MissingError without one, DataError for anything but a JSON object.
    """
    file = path / RUN_INFO
    if not file.is_file():
        peer = "; DataComp's info.pkl is a pickle and is not opened, name its model and checkpoint"
        raise MissingError(
            f"no run at {path}: {RUN_INFO} is not there"
            + (peer if (path / "info.pkl").is_file() else "")
        )
    info = read_json(file, MAX_RUN_INFO_BYTES)
    if not isinstance(info, dict):
        raise DataError(f"{file}: expected an object")
    return info


def _inside(root: Path, name: Any, file: Path, key: str) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{file}: {key} is {name!r}, expected a path inside the run")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise UnsafeInputError(f"{file}: {key} {name[:200]!r} leaves the run's directory")
    return path
