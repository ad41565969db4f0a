"""Which versions of which libraries a number was computed with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

from .. import __version__

PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "webdataset",
    "numpy", "scipy", "scikit-learn", "pillow",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Return the versions of datacomp, Python and the installed libraries that count."""
    found = {"datacomp": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
