"""Architectures as open_clip describes them: by name, or in a file that is checked first."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..durable import digest, read_json
from ..errors import DataError, MissingError, UnsafeInputError, UsageError, suggest
from .late import late

MAX_CONFIG_BYTES = 1 << 20
MAX_CONFIG_NUMBER = 1_000_000
_HUB = re.compile(r"(hf[-_]hub|local[-_]dir|https?):")


def import_open_clip() -> Any:
    """Return open_clip, or raise MissingError with the line that installs it."""
    try:
        with late("wandb"):  # timm could log to it; it takes a fifth of the time
            import open_clip
    except ImportError:
        raise MissingError(
            "models need open_clip, which is not installed: pip install -e '.[train]'"
        ) from None
    return open_clip


def builtin_config(model: str) -> dict[str, Any]:
    """Return open_clip's own configuration of a name; raise UsageError for an unknown one."""
    open_clip = import_open_clip()
    known = open_clip.list_models()
    if model not in known:
        raise UsageError(
            f"unknown model {model!r}{suggest(model, known)}; open_clip knows {len(known)} by "
            "name, another architecture needs its configuration as a .json file"
        )
    return open_clip.get_model_config(model)


def read_config(path: Path) -> dict[str, Any]:
    """Read an open_clip model configuration; refuse what would download or open other files."""
    if not path.is_file():
        raise MissingError(f"no model configuration at {path}")
    config = read_json(path, MAX_CONFIG_BYTES)
    if not isinstance(config, dict):
        raise DataError(f"{path}: not an open_clip model configuration (expected an object)")
    if isinstance(config.get("model_cfg"), dict):  # as the Hub has it
        config = config["model_cfg"]
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(config.get(key), kind):
            raise DataError(f"{path}: not an open_clip model configuration (no usable {key!r})")
    _check_values(config, path, "")
    return config


def _check_values(value: Any, path: Path, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "bpe_path":
                raise UnsafeInputError(f"{path}: {where}{key} would open another file")
            if key in ("hf_model_name", "hf_tokenizer_name"):
                raise UnsafeInputError(f"{path}: {where}{key} would need a download")
            _check_values(item, path, f"{where}{key}.")
    elif isinstance(value, list):
        for item in value:
            _check_values(item, path, where)
    elif isinstance(value, str) and _HUB.match(value):
        raise UnsafeInputError(f"{path}: {where[:-1]} {value[:80]!r} would need a download")
    elif isinstance(value, int | float) and not abs(value) <= MAX_CONFIG_NUMBER:
        raise UnsafeInputError(f"{path}: {where[:-1]} is {value}, at most {MAX_CONFIG_NUMBER:,}")


def register_config(model: str, path: Path | None) -> str:
    """Make a configuration known to open_clip in this process; return the name to build it by.

    The name carries the digest, so two files of one name never stand for each other.
    """
    if path is None:
        builtin_config(model)
        return model
    open_clip = import_open_clip()
    config = read_config(path)
    name = f"{path.stem}-{digest(config)[:16]}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.json"
            file.write_text(json.dumps(config))
            open_clip.add_model_config(file)
    return name


def side_of(size: Any) -> int:
    """Return the longer side of an image size, one number or two."""
    return int(max(size) if isinstance(size, list | tuple) else size)
