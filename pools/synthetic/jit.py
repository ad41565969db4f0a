"""Compile kernels: numba, a cache on disk, and what to do where there is none.

Only modules of kernels import this one; they are imported inside the functions that draw, so
that neither ``datacomp --help`` nor ``import datacomp.pools.synthetic`` pays for a compiler.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from ...errors import MissingError

try:
    import llvmlite
    import numba
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ImportError:
    raise MissingError(
        "synthetic images need numba; install it with: pip install -e '.[synth]'"
    ) from None

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function to machine code when it is first called; keep it for other processes.

    The code is kept beside the package or, where that cannot be written, in numba's folder of
    the user (``NUMBA_CACHE_DIR`` names another). Where nothing can be written it is compiled
    anew in each process. No fast maths and no threads: same bits on every machine.
    """
    compiled: Any = numba.njit(nogil=True)(function)
    with contextlib.suppress(RuntimeError):  # no folder can be written
        compiled._cache = _Cache(function)
    return cast("F", compiled)


class _Cache(FunctionCache):
    """numba's cache with files named by all that is in them.

    numba numbers its files, and an index says which number is which. Two processes that compile
    at the same time, or one that is killed, then leave machine code under the number of other
    code, and wrong pictures. Nor does numba see a change in a kernel that is called.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, None)
        self._sources = _digest_of_kernels(function.__code__.co_filename)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._sources)


class _Files(IndexDataCacheFile):
    """A file for each key, there whole or not at all; what cannot be used is compiled anew."""

    def save(self, key: Any, data: Any) -> None:
        """Keep ``data``, if there is room for it."""
        with contextlib.suppress(OSError):
            self._save_data(self._name(key), (key, data))

    def load(self, key: Any) -> Any:
        """Return what is kept, None for nothing."""
        try:
            found, data = self._load_data(self._name(key))
        except Exception:  # noqa: BLE001  a damaged file raises whatever its bytes mean
            return None
        return data if found == key else None

    def _name(self, key: Any) -> str:
        return self._data_name(int(hashlib.sha256(repr(key).encode()).hexdigest()[:16], 16))


@cache
def _digest_of_kernels(file: str) -> str:
    """Return the digest of a file of kernels, of those it imports, and of the compiler."""
    found = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    known, waiting = set(), [Path(file)]
    while waiting:
        path = waiting.pop()
        source = path.read_bytes() if path.is_file() else b""
        if path not in known and b"@kernel" in source:
            known.add(path)
            found.update(hashlib.sha256(source).digest())
            names = re.findall(rb"^from \.(\w+) import", source, re.MULTILINE)
            waiting += [path.with_name(f"{name.decode()}.py") for name in names]
    return found.hexdigest()
