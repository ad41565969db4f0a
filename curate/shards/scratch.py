"""Read back what memory did not hold, from a file without a name."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import StorageError


def read_rows(file: IO[bytes], start: int, count: int, dtype: Any, folder: Path) -> NDArray[Any]:
    """Return ``count`` rows of a dtype from a byte on, shape (count,); ``folder`` has the file.

    Raises StorageError where there are fewer: what is missing would pass for never written.
    """
    rows = np.empty(count, dtype)
    file.seek(start)
    found = file.readinto(rows.view(np.uint8).data) if count else 0  # pyright: ignore[reportAttributeAccessIssue]
    if found != rows.nbytes:
        raise StorageError(
            f"{folder}: of {rows.nbytes:,} bytes written there only {found:,} can be read; "
            "check the disk and run the same command again"
        )
    return rows
