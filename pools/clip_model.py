"""CLIP models of open_clip: open an architecture and a checkpoint safely, embed images and texts.

Filters score with it and the evaluation measures with it, so it stands on the ground floor. A
model is named by architecture and checkpoint, or by the run that trained it.
Weights are read as plain tensors only, and a checkpoint must fit its architecture exactly:
nothing is resized, skipped or downloaded.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..durable import digest, read_json, sha256_file
from ..errors import (
    DatacompError,
    DataError,
    MissingError,
    RunError,
    UnsafeInputError,
    UsageError,
    suggest,
)
from . import images as image_files
from .clip_settings import FILE as OWN_CONFIG
from .clip_settings import WEIGHTS, check_architecture, own_settings, preparation_digest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PRECISIONS = ("fp32", "bf16", "fp16")
MAX_CONFIG_BYTES = 1 << 20
MAX_CONFIG_NUMBER = 1_000_000
MAX_TEXT = 4096
"""Characters of a text that are looked at. A model reads some hundred, but the time a tokenizer
takes grows with the square of a word's length: a megabyte without a space would take hours."""
RUN_INFO = "info.json"
"""The description of a run, in its folder."""
MAX_RUN_INFO_BYTES = 16 << 20
_HUB = re.compile(r"(hf[-_]hub|local[-_]dir|https?):")


@dataclass(frozen=True)
class ClipModel:
    """A loaded model. ``identity`` says which: model, config digest, weights, precision, size.

    Where a checkpoint says itself how images are to be prepared, that counts, and ``identity``
    has its digest under ``preprocessing``.

    ``preprocess`` turns an RGB image into a float32 tensor (3, size, size), ``tokenizer`` a
    list of texts into an int64 tensor (n, context length).
    """

    model: torch.nn.Module
    preprocess: Any
    tokenizer: Any
    device: str
    precision: str
    image_size: int
    identity: dict[str, Any]

    @classmethod
    def load(
        cls,
        model: str,
        checkpoint: Path,
        model_config: Path | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> ClipModel:
        """Build ``model`` and fill it with the weights of ``checkpoint``.

        ``model_config`` is an open_clip configuration for an architecture that open_clip does
        not know by name. Raises MissingError without the train extra or the checkpoint,
        UnsafeInputError for a checkpoint that carries code, DataError for one that does not
        fit, UsageError for an unknown model, device or precision.
        """
        open_clip = import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        identity = model_identity(model, checkpoint, model_config, precision)
        device = resolve_device(device)
        weights = read_checkpoint(checkpoint)
        name = register_config(model, model_config)
        network = _build(open_clip, name, model, device, precision)
        _fill(network, weights, checkpoint, model)
        network.eval()
        with _as_data_error(model):
            tokenizer = open_clip.get_tokenizer(name)
        settings = dict(getattr(network.visual, "preprocess_cfg", {}))
        size = _side(settings.get("size", 224))
        own = own_settings(checkpoint)
        if own is not None:
            settings |= own.preparation
            if _side(settings["size"]) != size:
                raise DataError(
                    f"{checkpoint}: takes images of {_side(settings['size'])} px, as "
                    f"{own.file.name} says, but {model} of {size} px"
                )
            open_clip.model.set_model_preprocess_cfg(network, settings)
        preprocess = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        return cls(network, preprocess, tokenizer, device, precision, size, identity)

    def preparation(self) -> dict[str, Any]:
        """Return how images and captions are made ready: what ``preprocess`` and tokenizer do."""
        settings = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dict(getattr(self.model.visual, "preprocess_cfg", {})).items()
        }
        return {
            **settings,
            "tokenizer": type(self.tokenizer).__name__,
            "context_length": getattr(self.tokenizer, "context_length", None),
        }

    def prepare(self, image: Image | bytes) -> torch.Tensor:
        """Decode and preprocess one image to a tensor (3, size, size); safe to call in threads.

        Raises DataError for bytes that are no sound image, UnsafeInputError for one that is
        too large, or so narrow that resizing it would make it too large.
        """
        if isinstance(image, bytes):
            image = image_files.decode(image)
        short, long = sorted(image.size)
        resized = self.image_size**2 * long // max(short, 1)
        if resized > image_files.MAX_PIXELS:
            raise UnsafeInputError(f"{image.width} x {image.height} pixels: too narrow to resize")
        return self.preprocess(image.convert("RGB"))

    def encode_tensors(self, tensors: Sequence[torch.Tensor]) -> np.ndarray:
        """Embed prepared images as one batch: float32 (n, d), each row of length one."""
        import torch

        batch = torch.stack(list(tensors)).to(self.device, self._dtype())
        return self._encode(lambda: self.model.encode_image(batch))  # pyright: ignore[reportCallIssue]

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 (n, d), each row of length one; see MAX_TEXT for long ones."""
        parts: list[np.ndarray] = []
        for i in range(0, len(texts), batch_size):
            shortened = [text[:MAX_TEXT] for text in texts[i : i + batch_size]]
            tokens = self.tokenizer(shortened).to(self.device)
            parts.append(
                self._encode(lambda tokens=tokens: self.model.encode_text(tokens))  # pyright: ignore[reportCallIssue]
            )
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _dtype(self) -> torch.dtype:
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self.precision
        ]

    def _encode(self, forward: Any) -> np.ndarray:
        import torch

        try:
            with torch.inference_mode(), _exact(self.device):
                features = forward().float()
                features = torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
        except torch.OutOfMemoryError:
            raise RunError("the device is out of memory; use a smaller --batch-size") from None
        if not np.isfinite(features).all():
            raise DataError(
                f"model {self.identity['model']} gives embeddings that are not finite "
                f"in {self.precision}; try --precision fp32"
            )
        return features


@dataclass(frozen=True)
class ModelSpec:
    """An architecture (open_clip's name, or a configuration file) and its weights."""

    model: str
    checkpoint: Path
    model_config: Path | None = None

    def identity(self, precision: str = "fp32") -> dict[str, Any]:
        """Return what names the model for good; see :func:`model_identity`."""
        return model_identity(self.model, self.checkpoint, self.model_config, precision)

    def load(self, device: str = "auto", precision: str = "fp32") -> ClipModel:
        """Load the model; see :meth:`ClipModel.load` for the errors."""
        return ClipModel.load(self.model, self.checkpoint, self.model_config, device, precision)


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


def import_open_clip() -> Any:
    """Return open_clip, or raise MissingError with the line that installs it."""
    try:
        import open_clip
    except ImportError:
        raise MissingError(
            "models need open_clip, which is not installed: pip install -e '.[train]'"
        ) from None
    return open_clip


def model_identity(
    model: str, checkpoint: Path, model_config: Path | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Return what names a model for good: model, config, weights_sha256, precision, image_size.

    Costs one read of the checkpoint's bytes; nothing of it is interpreted. Raises DataError where
    the configuration beside it (see ``clip_settings``) says that it is of another architecture.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision!r}{suggest(precision, list(PRECISIONS))}; "
            f"there are: {', '.join(PRECISIONS)}"
        )
    config = read_config(model_config) if model_config else _builtin_config(model)
    if not checkpoint.is_file():
        raise MissingError(f"no checkpoint at {checkpoint}; train the model or give another path")
    own = own_settings(checkpoint)
    if own is not None:
        check_architecture(checkpoint, own, model, config, import_open_clip())
    prepared = preparation_digest(own)
    return {
        "model": model,
        "config": digest(config),
        "weights_sha256": _weights_digest(checkpoint),
        "precision": precision,
        "image_size": _side(config["vision_cfg"].get("image_size", 224)),
        **({} if prepared is None else {"preprocessing": prepared}),
    }


def _weights_digest(path: Path) -> str:
    """Return the SHA-256 of a file of weights; one that has not changed is read once."""
    state = path.stat()
    return _digest_of(path, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(16)
def _digest_of(path: Path, *_: int) -> str:
    return sha256_file(path)


def _side(size: Any) -> int:
    return int(max(size) if isinstance(size, list | tuple) else size)


def _builtin_config(model: str) -> dict[str, Any]:
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
        _builtin_config(model)
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


def resolve_device(device: str) -> str:
    """Return the device to use; ``auto`` is the GPU if there is one."""
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; there are: auto, cpu, cuda, cuda:N")
    _, _, number = device.partition(":")
    if device != "cpu" and (not has_gpu or int(number or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {device} is not here; use --device cpu")
    return device


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by name, ``module.`` taken off; nothing in it is executed.

    Reads safetensors, plain state dictionaries and open_clip training checkpoints. Raises
    UnsafeInputError when the file would run code, DataError when it is no checkpoint.
    """
    import torch

    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise DataError(f"{path}: not a checkpoint (no state_dict of tensors in it)")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise DataError(f"{path}: not a checkpoint ({str(name)[:80]!r} is not a tensor)")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{path}: tensor {name!r} holds values that are not finite; the training diverged"
            )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a safetensors file: {_first_line(error)}") from None


def _read_torch(path: Path) -> Any:
    import pickle
    import zipfile

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapped = zipfile.is_zipfile(path)  # spares reading the optimiser's half of the file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        text = str(error)
        found = re.search(r"(GLOBAL|global|class|function) ([\w.]+\.\w+)", text)
        if found or "Unsupported" in text or "unsupported" in text:
            what = f" ({found.group(2)})" if found else ""
            raise UnsafeInputError(
                f"{path}: refused, loading it would run code{what}; "
                "export its tensors as safetensors where it comes from"
            ) from None
        raise DataError(f"{path}: not a checkpoint, or a damaged one") from None
    except (
        RuntimeError, EOFError, ValueError, LookupError, OSError, AttributeError, TypeError
    ) as error:  # fmt: skip
        if "TorchScript" in str(error):
            raise UnsafeInputError(
                f"{path}: refused, a TorchScript archive carries code; "
                "export its tensors as safetensors where it comes from"
            ) from None
        raise DataError(f"{path}: not a checkpoint, or a damaged one") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _as_data_error(model: str) -> Iterator[None]:
    """Name the architecture in whatever open_clip raises about it, and keep its log quiet."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except DatacompError:
        raise
    except ImportError as error:
        raise MissingError(f"model {model} needs more: {_first_line(error)}") from None
    except Exception as error:  # noqa: BLE001  a configuration can break any of its classes
        raise DataError(
            f"model {model} cannot be built: {type(error).__name__}: {_first_line(error)}"
        ) from None
    finally:
        logging.disable(before)


def _build(open_clip: Any, name: str, model: str, device: str, precision: str) -> torch.nn.Module:
    import torch

    state = torch.random.get_rng_state()
    try:
        with _as_data_error(model):
            return open_clip.create_model(
                name, device=device, precision=precision, load_weights=False,
                pretrained_image=False, pretrained_text=False, output_dict=False,
            )  # fmt: skip
    finally:
        torch.random.set_rng_state(state)  # the random start is thrown away: leave no trace


def _fill(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path, model: str
) -> None:
    from open_clip.model import convert_to_custom_text_state_dict

    if "positional_embedding" in weights and not hasattr(network, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)  # open_clip's format before 2022
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        found = weights.get(name)
        if found is not None and found.numel() == tensor.numel() == 1:
            weights[name] = found = found.reshape(tensor.shape)  # logit scale: scalar or (1,)
        if found is None or found.shape != tensor.shape:
            shape = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise DataError(
                f"{path}: not a checkpoint of {model}: tensor {name!r} {shape}, "
                f"the model has {tuple(tensor.shape)}"
            )
    extra = [name for name in weights if name not in wanted]
    if extra:
        raise DataError(
            f"{path}: not a checkpoint of {model}: tensor {extra[0]!r} with shape "
            f"{tuple(weights[extra[0]].shape)} is not in the model"
        )
    network.load_state_dict(weights)


@contextlib.contextmanager
def _exact(device: str) -> Iterator[None]:
    """Keep a GPU from rounding fp32 convolutions to TF32 and from choosing kernels by timing."""
    if device == "cpu":
        yield
        return
    import torch

    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
