"""Ground floor: what we could train on.

A :class:`~datacomp.pools.pool.Pool` is one DuckDB file of candidate samples. Sources bring
samples in, :mod:`~datacomp.pools.uids` names them, :mod:`~datacomp.pools.tar` and
:mod:`~datacomp.pools.images` read what strangers packed, :mod:`~datacomp.pools.views` reads
subsets of shards that were never copied. This floor imports no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pool import AddReport, Pool

__all__ = ["AddReport", "Pool"]


def __getattr__(name: str) -> Any:
    """Import the pool, and DuckDB with it, when it is asked for: views do without."""
    if name in __all__:
        from . import pool

        return getattr(pool, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
