"""What is known of a checkpoint: the configuration beside it, or what open_clip lists of it.

Weights fit an architecture by their shapes alone, but the activation (QuickGELU or GELU), the
heads and how images are prepared leave no trace in shapes: with the wrong ones a model embeds,
and embeds badly. The Hub puts ``open_clip_config.json`` beside open_clip's weights, and a run its
``info.json``; where there is one, it counts. Otherwise published weights are recognised.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..durable import read_json
from ..errors import DatacompError, DataError
from .published_weights import recognise

FILE = "open_clip_config.json"
RUN_INFO = "info.json"
MAX_BYTES = 1 << 20
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)  # fmt: skip
"""Names of the weights in a repository of the Hub, the safer first."""
MAX_SIDE = 16384
_PREPARATION = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size")
_INTERPOLATIONS = ("bicubic", "bilinear")
_RESIZES = ("shortest", "longest", "squash")
_REGISTERED = re.compile(r"-[0-9a-f]{16}$")
"""What ends the names under which configurations of one's own are made known to open_clip."""
_OF_TRAINING = ("patch_dropout", "init_logit_scale", "init_logit_bias")
"""Settings that change how a model is trained, not what it computes."""


@dataclass(frozen=True)
class OwnSettings:
    """What is known of a checkpoint, and who said it; ``model`` names or describes what it is.

    ``file`` is the configuration, None where open_clip's list says it.
    """

    said: str
    file: Path | None
    model: str | Mapping[str, Any]
    preparation: Mapping[str, Any] = field(default_factory=dict)


def settings_of(checkpoint: Path, sha256: Callable[[], str]) -> OwnSettings | None:
    """Return what is known of a checkpoint, None where nothing is.

    ``sha256`` is asked for its digest where nothing lies beside it. Raises DataError for a
    configuration that cannot be one.
    """
    own = own_settings(checkpoint)
    if own is None:
        listed = recognise(checkpoint, sha256)
        if listed is not None:
            own = OwnSettings(listed.said, None, listed.config(), listed.preparation)
    return own


def own_settings(checkpoint: Path) -> OwnSettings | None:
    """Return what lies beside a checkpoint, None where nothing does.

    Raises DataError for a configuration that cannot be one.
    """
    file = checkpoint.parent / FILE
    if file.is_file():
        found = read_json(file, MAX_BYTES)
        config = found.get("model_cfg") if isinstance(found, dict) else None
        if not isinstance(config, dict):
            raise DataError(f"{file}: not open_clip's (no object model_cfg)")
        prepared = _preparation(file, found.get("preprocess_cfg") or {})
        return OwnSettings(file.name, file, config, prepared)
    return _of_run(checkpoint)


def _of_run(checkpoint: Path) -> OwnSettings | None:
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        file = folder / RUN_INFO
        if not file.is_file():
            continue
        with contextlib.suppress(DatacompError, OSError, ValueError):
            info = read_json(file, 16 << 20)
            if not isinstance(info, dict) or not isinstance(info.get("checkpoint"), str):
                continue
            if (folder / info["checkpoint"]).resolve() != checkpoint.resolve():
                continue
            config, name = info.get("model_config"), info.get("model")
            if isinstance(config, str):
                inside = (folder / config).resolve()
                if inside.is_relative_to(folder.resolve()):
                    return OwnSettings(file.name, file, read_json(inside, MAX_BYTES))
            elif isinstance(name, str):
                return OwnSettings(file.name, file, name)
    return None


def _preparation(file: Path, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise DataError(f"{file}: preprocess_cfg is no object")
    found = {key: given[key] for key in _PREPARATION if given.get(key) is not None}
    for key in ("mean", "std"):
        if key in found and not _three_numbers(found[key], positive=key == "std"):
            raise DataError(f"{file}: preprocess_cfg.{key} is {found[key]!r}, expected 3 numbers")
    for key, known in (("interpolation", _INTERPOLATIONS), ("resize_mode", _RESIZES)):
        if key in found and found[key] not in known:
            raise DataError(
                f"{file}: preprocess_cfg.{key} is {found[key]!r}, expected one of "
                f"{', '.join(known)}"
            )
    if "size" in found and not _is_size(found["size"]):
        raise DataError(f"{file}: preprocess_cfg.size is {found['size']!r}, expected pixels")
    if given.get("mode", "RGB") != "RGB":
        raise DataError(f"{file}: preprocess_cfg.mode is {given['mode']!r}, expected 'RGB'")
    return found


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(side) is int and 0 < side <= MAX_SIDE for side in sides)


def _three_numbers(value: Any, positive: bool) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(n) in (int, float) and abs(n) < 1e3 and (n > 0 or not positive) for n in value)
    )


def check_architecture(
    checkpoint: Path, own: OwnSettings, model: str, config: Mapping[str, Any], open_clip: Any
) -> None:
    """Raise DataError where a checkpoint says that it is of another architecture than this."""
    try:
        theirs = open_clip.get_model_config(own.model) if isinstance(own.model, str) else own.model
        if theirs is None:
            return
        mine, other = _filled(config, open_clip), _filled(theirs, open_clip)
    except (TypeError, AttributeError) as error:
        raise DataError(f"{own.file or own.said}: not a model's configuration: {error}") from None
    for key in sorted(set(mine) | set(other), key=lambda key: (key != "quick_gelu", key)):
        if mine.get(key) != other.get(key):
            name = _name_of(other, open_clip)
            what = f"--model {name}" if name else f"the configuration in {own.file}"
            raise DataError(
                f"{checkpoint}: trained with {key} {_shown(other.get(key))}, as {own.said} "
                f"says, but {model} has {_shown(mine.get(key))}; use {what}"
            )


def _filled(config: Mapping[str, Any], open_clip: Any) -> dict[str, Any]:
    """Return a configuration flat, with the defaults of what it leaves out."""
    flat: dict[str, Any] = {
        "embed_dim": config.get("embed_dim"),
        "quick_gelu": bool(config.get("quick_gelu", False)),
    }
    for part, kind in (
        ("vision_cfg", open_clip.CLIPVisionCfg),
        ("text_cfg", open_clip.CLIPTextCfg),
    ):
        given = dict(config.get(part) or {})
        known = asdict(kind()) | given
        flat |= {f"{part}.{key}": _plain(value) for key, value in known.items()}
    return {key: value for key, value in flat.items() if key.split(".")[-1] not in _OF_TRAINING}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _name_of(filled: dict[str, Any], open_clip: Any) -> str | None:
    """Return open_clip's own name of an architecture, the shortest."""
    for name in sorted(open_clip.list_models(), key=lambda name: (len(name), name)):
        if _REGISTERED.search(name):
            continue
        with contextlib.suppress(TypeError):
            if _filled(open_clip.get_model_config(name), open_clip) == filled:
                return name
    return None


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)[:60]


def preparation(own: OwnSettings | None, model_config: Path | None = None) -> dict[str, Any]:
    """Return how images are to be prepared, as far as it is said: mean, std and so on.

    A ``model_config`` as the Hub has it says it too. Raises DataError where the two differ.
    """
    given = {} if model_config is None else _preparation_in(model_config)
    if own is None or own.file == model_config:
        return given
    for key in sorted(given.keys() & own.preparation.keys()):
        if given[key] != own.preparation[key]:
            raise DataError(
                f"{model_config}: preprocess_cfg.{key} is {given[key]}, but the checkpoint wants "
                f"{own.preparation[key]}, as {own.said} says"
            )
    return {**given, **own.preparation}


def _preparation_in(model_config: Path) -> dict[str, Any]:
    found = read_json(model_config, MAX_BYTES)
    prepared = found.get("preprocess_cfg") if isinstance(found, dict) else None
    return {} if prepared is None else _preparation(model_config, prepared)
