"""Memory that is given back to be used again, not to the system.

When little more than its largest block is free, the C library hands that back to the system, and
asks for it anew next time; the system fills it with zeros, a page at a time: a fifth of what it
takes to decode an image. A process that works on one image after the other keeps it.

Spec: mallopt(3), of the GNU C library; other libraries have no such call, or ignore it.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BLOCK = 32 << 20
"""The largest that the C library takes; beyond it blocks come from the system as before."""
_KEPT = 64 << 20
"""What is kept in all, about, at the end of the heap."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to about 64 MB."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT)
