"""Where what was found out once is kept for the user; it can be lost without harm."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return datacomp's folder in the user's cache; it may not be there yet.

    By the XDG Base Directory Specification. Raises RuntimeError for a user without a home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datacomp"
