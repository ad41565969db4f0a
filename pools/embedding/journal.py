"""What is done of a part that is not: a killed run loses the batch at work, and no more.

One ``.npz`` a batch, in a hidden folder of the features. It is renamed into place without being
flushed to the disk, for it may be lost; its checksums tell whether it is whole.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...durable import partial_path, storage_errors
from ..uids import UidArray
from .embedded import Embedded

FOLDER = ".unfinished"


class Journal:
    """The batches of one part that are done already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def find(self, number: int, uids: UidArray) -> Embedded | None:
        """Return a batch if it is there, whole, and of just these samples."""
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = Embedded(**{name: arrays[name] for name in arrays.files})
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return found if found.fits() and np.array_equal(found.uids, uids) else None

    def keep(self, number: int, batch: Embedded) -> None:
        """Keep a batch."""
        path = self._path(number)
        with storage_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial_path(path).open("wb") as file:
                np.savez(file, **batch.arrays())  # pyright: ignore[reportArgumentType]
            partial_path(path).replace(path)

    def clear(self) -> None:
        """Forget all batches: the part is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
