"""The trainer's checkpoints: with or without several processes, names of weights are put right.

Where several processes train, torch wraps the model, and every name gets a prefix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..durable import atomic_path

_WRAPPED = "module."


def load_to_resume(path: str, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint of the trainer, named as the processes that go on with it need.

    Stands in for ``open_clip_train.main.pt_load``, which can go on only with as many processes
    as before, and unpickles.
    """
    import torch
    from torch import distributed

    content = torch.load(path, map_location=map_location, weights_only=True)
    prefix = _WRAPPED if distributed.is_initialized() and distributed.get_world_size() > 1 else ""
    content["state_dict"] = {
        prefix + name: value for name, value in _plain(content["state_dict"]).items()
    }
    return content


def keep_weights_only(checkpoint: Path, name: str) -> None:
    """Drop optimiser, folder's name and wrapping: fewer bytes, and the same in any folder."""
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    slim = {"epoch": content["epoch"], "name": name, "state_dict": _plain(content["state_dict"])}
    with atomic_path(checkpoint) as partial:
        torch.save(slim, partial)


def _plain(weights: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_WRAPPED): value for name, value in weights.items()}
