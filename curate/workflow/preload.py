"""Imported once by the fork server, so that every stage starts with the heavy libraries at hand."""

from __future__ import annotations

import contextlib
import sys

from .lifeline import tie_fork_server

tie_fork_server()  # before what takes seconds to import

with contextlib.suppress(ImportError):
    if "wandb" not in sys.modules:
        sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]  seconds to import, unused
    import open_clip_train.main  # noqa: F401  pyright: ignore[reportUnusedImport]
sys.modules.pop("wandb", None)
