"""What is done of a part that is not: a killed run loses the batch at work, and no more.

One ``.npz`` a batch, in a hidden folder of the features. It is renamed into place without being
flushed to the disk, for it may be lost; its checksums tell whether it is whole. With it stands the
digest of what it was made of: the same uids may have other captions or images by now.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...durable import canonical_json, partial_path, storage_errors
from ..reading import Place, PlacedBatch
from .embedded import Embedded

FOLDER = ".unfinished"
_MADE_OF = "made_of"


def digest_of_batch(identity: dict[str, Any], batch: PlacedBatch) -> str:
    """Return the SHA-256 of what features depend on: the model, and each caption and image.

    An image is its SHA-256 where the pool knows it, else where it lies, with the size and time
    of that file.
    """
    found = hashlib.sha256(canonical_json(identity))
    found.update(batch.uids.tobytes())
    stats: dict[str, list[int]] = {}
    images = [_image(place, stats) for place in batch.places]
    found.update(canonical_json([batch.columns["text"].to_pylist(), images]))
    return found.hexdigest()


def _image(place: Place | None, stats: dict[str, list[int]]) -> Any:
    if place is None or place.sha256:
        return place and place.sha256
    if place.path not in stats:
        try:
            stat = os.stat(place.path)
            stats[place.path] = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            stats[place.path] = []
    return [place.path, place.offset, place.length, *stats[place.path]]


class Journal:
    """The batches of one part that are done already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def find(self, number: int, made_of: str) -> Embedded | None:
        """Return a batch if it is there, whole, and made of just this."""
        path = self._path(number)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
            same = str(held.pop(_MADE_OF, "")) == made_of
            found = Embedded(**held) if same else None
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return found if found is not None and found.fits() else None

    def keep(self, number: int, batch: Embedded, made_of: str) -> None:
        """Keep a batch."""
        path = self._path(number)
        arrays = {**batch.arrays(), _MADE_OF: np.array(made_of)}
        with storage_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial_path(path).open("wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            partial_path(path).replace(path)

    def clear(self) -> None:
        """Forget all batches: the part is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
