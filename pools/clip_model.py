"""CLIP models of open_clip: open an architecture and a checkpoint safely, embed images and texts.

Filters score with it and the evaluation measures with it, so it stands on the ground floor. A
model is named by architecture and checkpoint, or by the run that trained it.
Weights are read as plain tensors only, and a checkpoint must fit its architecture exactly:
nothing is resized, skipped or downloaded, but for the tokenizers of ``clip_tokenizer``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatacompError, DataError, MissingError, UnsafeInputError
from . import images as image_files
from .checkpoints import first_line, read_checkpoint
from .clip_config import import_open_clip, register_config, side_of
from .clip_identity import model_identity
from .clip_settings import preparation, settings_of
from .clip_tokenizer import load_tokenizer
from .devices import exact, memory_for_batch, memory_for_model, resolve_device
from .text_tower import TextTower

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_TEXT = 4096
"""Characters of a text that are looked at. A model reads some hundred, but the time a tokenizer
takes grows with the square of a word's length: a megabyte without a space would take hours."""

_TOKENIZING = threading.Lock()  # some tokenizers set themselves up anew for every call


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
            tokenizer = load_tokenizer(open_clip, name, model)
        settings = dict(getattr(network.visual, "preprocess_cfg", {}))
        size = side_of(settings.get("size", 224))
        own = settings_of(checkpoint, lambda: identity["weights_sha256"])
        given = preparation(own, model_config)
        if given:
            settings |= given
            if side_of(settings["size"]) != size:
                raise DataError(
                    f"{checkpoint}: takes images of {side_of(settings['size'])} px, as "
                    f"{own.said if own is not None and 'size' in own.preparation else model_config}"
                    f" says, but {model} of {size} px"
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

        with memory_for_batch():
            batch = torch.stack(list(tensors)).to(self.device, self._dtype())
        return self._encode(lambda: self.model.encode_image(batch))  # pyright: ignore[reportCallIssue]

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 (n, d), each row of length one; safe to call in threads.

        See MAX_TEXT for long ones.
        """
        parts: list[np.ndarray] = []
        for i in range(0, len(texts), batch_size):
            shortened = [text[:MAX_TEXT] for text in texts[i : i + batch_size]]
            with memory_for_batch(), _TOKENIZING:
                tokens = self.tokenizer(shortened).to(self.device)
            parts.append(self._encode(lambda tokens=tokens: self._text_tower(tokens)))
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    @functools.cached_property
    def _text_tower(self) -> TextTower:
        return TextTower(self.model)

    def _dtype(self) -> torch.dtype:
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self.precision
        ]

    def _encode(self, forward: Any) -> np.ndarray:
        import torch

        with memory_for_batch(), torch.inference_mode(), exact(self.device):
            features = forward().float()
            features = torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
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


def _build(open_clip: Any, name: str, model: str, device: str, precision: str) -> torch.nn.Module:
    import torch

    state = torch.random.get_rng_state()
    try:
        with _as_data_error(model), memory_for_model():
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
def _as_data_error(model: str) -> Iterator[None]:
    """Name the architecture in whatever open_clip raises about it, and keep its log quiet."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except DatacompError:
        raise
    except ImportError as error:
        raise MissingError(f"model {model} needs more: {first_line(error)}") from None
    except Exception as error:  # noqa: BLE001  a configuration can break any of its classes
        raise DataError(
            f"model {model} cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from None
    finally:
        logging.disable(before)
