"""Compile kernels: numba, its cache on disk, and what to do where there is none.

Only modules of kernels import this one; they are imported inside the functions that draw, so
that neither ``datacomp --help`` nor ``import datacomp.pools.synthetic`` pays for a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from ...errors import MissingError

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function to machine code when it is first called; keep it for other processes.

    The code is kept beside the package or, where that cannot be written, in numba's folder of
    the user (``NUMBA_CACHE_DIR`` names another). Where nothing can be written it is compiled
    anew in each process. No fast maths and no threads: same bits on every machine.

    numba notices a change of a kernel's own file, not of kernels it calls in other files: who
    edits those must remove ``pools/synthetic/__pycache__``.
    """
    try:
        import numba
    except ImportError:
        raise MissingError(
            "synthetic images need numba; install it with: pip install -e '.[synth]'"
        ) from None
    try:
        return cast("F", numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder can be written
        return cast("F", numba.njit(nogil=True)(function))
