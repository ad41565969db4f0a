"""Which versions of which libraries a number was computed with."""

from __future__ import annotations

import importlib.metadata
import platform

from .. import __version__

PACKAGES = ("torch", "torchvision", "open_clip_torch", "webdataset", "numpy", "pillow")


def library_versions() -> dict[str, str]:
    """Return the versions of datacomp, Python and the libraries that a score may depend on."""
    return {
        "datacomp": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
