"""Ground floor: what we could train on.

A :class:`~datacomp.pools.pool.Pool` is one DuckDB file of candidate samples. Sources bring
samples in, :mod:`~datacomp.pools.uids` names them, :mod:`~datacomp.pools.tar` and
:mod:`~datacomp.pools.images` read what strangers packed. This floor imports no other.
"""

from .pool import AddReport, Pool

__all__ = ["AddReport", "Pool"]
