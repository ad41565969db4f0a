"""Checkpoints read as plain tensors: nothing in them is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UnsafeInputError

if TYPE_CHECKING:
    import torch


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by name, ``module.`` taken off; nothing in it is executed.

    Reads safetensors, plain state dictionaries and open_clip training checkpoints. Raises
    UnsafeInputError when the file would run code, DataError when it is no checkpoint.
    """
    import torch

    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
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
        raise DataError(f"{path}: not a safetensors file: {first_line(error)}") from None


def read_torch(path: Path, what: str = "a checkpoint") -> Any:
    """Return what ``torch.save`` wrote; nothing in it is executed.

    Raises UnsafeInputError when the file would run code, DataError when it is not ``what``.
    """
    import pickle
    import zipfile

    import torch

    mapped = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapped = zipfile.is_zipfile(path)  # spares reading the optimiser's half of the file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        text = str(error)
        found = re.search(r"(GLOBAL|global|class|function) ([\w.]+\.\w+)", text)
        if found or ("nsupported" in text and (mapped or _is_pickle(path))):
            name = f" ({found.group(2)})" if found else ""
            raise UnsafeInputError(
                f"{path}: refused, loading it would run code{name}; "
                "export its tensors as safetensors where it comes from"
            ) from None
        raise DataError(f"{path}: not {what}, or a damaged one") from None
    except (
        RuntimeError, EOFError, ValueError, LookupError, OSError, AttributeError, TypeError
    ) as error:  # fmt: skip
        if "TorchScript" in str(error):
            raise UnsafeInputError(
                f"{path}: refused, a TorchScript archive carries code; "
                "export its tensors as safetensors where it comes from"
            ) from None
        raise DataError(f"{path}: not {what}, or a damaged one") from None


def _is_pickle(path: Path) -> bool:
    """Tell whether a file begins as all pickles do but those of the oldest protocols."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
