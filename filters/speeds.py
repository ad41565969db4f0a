"""Remember how fast scorers were on this machine, so that a plan can say what others will take.

The user's cache has it, by class: a score with other parameters, or of another pool, takes about as
long a sample. What cannot be kept or read is no loss.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from ..durable import read_json, write_json
from ..errors import DatacompError
from ..user_cache import user_cache
from .contract import Scorer

_ENOUGH_ROWS, _ENOUGH_SECONDS = 1000, 1.0
"""Less says more about how long a model takes to load than about samples."""

_MOST, _MAX_BYTES = 200, 1 << 16
_LOST = (OSError, DatacompError, RuntimeError)
"""A cache that cannot be used, or a user without a home."""


def remember(scorer: Scorer, rows: int, seconds: float) -> None:
    """Keep how long a scorer took for so many samples, unless that is too little to tell."""
    if rows < _ENOUGH_ROWS or seconds < _ENOUGH_SECONDS:
        return
    known = _known()
    name = _name(scorer)
    if len(known) >= _MOST and name not in known:
        known = {}
    with contextlib.suppress(*_LOST):
        write_json(_file(), {**known, name: seconds / rows})


def estimate(scorer: Scorer, rows: int) -> float | None:
    """Return how many seconds a scorer may take for so many samples; None is not known."""
    each = _known().get(_name(scorer))
    return None if each is None else each * rows


def _file() -> Path:
    return user_cache() / "speeds.json"


def _name(scorer: Scorer) -> str:
    return f"{type(scorer).__module__}.{type(scorer).__qualname__}"


def _known() -> dict[str, float]:
    """Return the seconds a sample by class; what is no such list counts as none."""
    try:
        found = read_json(_file(), _MAX_BYTES)
    except _LOST:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: each
        for name, each in found.items()
        if isinstance(each, float) and math.isfinite(each) and each > 0
    }
