"""Memory that is freed is kept to be used again.

When little more than its largest block is free, the C library hands that back to the system, and
asks for it anew next time; the system fills it with zeros, a page at a time: a fifth of what it
takes to decode an image. A process that works on one image after the other keeps it.

Spec: mallopt(3), of the GNU C library; others have no such call.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_BLOCK = 8 << 20
"""Larger blocks are the system's, each by itself, and go back to it at once: pixels of a photo."""
_FREE = 32 << 20
"""More than this goes back to the system when it is free at the end of the heap."""


def keep_freed_memory() -> None:
    """Let this process keep small blocks that it frees, where the C library can be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _FREE)
