"""Images with class labels in tars (``KEY.png``, ``KEY.cls``), at hand in any order.

The whole set is an index of byte ranges, 20 bytes a sample, so that epochs can be shuffled
perfectly and a run can go on at any step without reading what came before.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...durable import digest
from ...errors import DataError, UsageError
from ...pools import images, tar
from ...pools.sources.base import image_member
from ...progress import track, warn
from ..data import find_shards, pin
from ..evalsets import CLASSNAMES

MAX_CLASSES = 1_000_000
MAX_LABEL_BYTES = 64


@dataclass(frozen=True)
class LabelledImages:
    """``n`` samples: shard (int32), offset (int64), length (int32) and label (int32), each (n,)."""

    path: Path
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray
    classes: int
    fingerprint: str
    set_aside: int = 0
    _files: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.label)

    def read(self, index: int) -> bytes:
        """Return the encoded image of a sample; safe in threads and in forked workers."""
        shard = int(self.shard[index])
        file = self._files.get(shard)
        if file is None:
            file = self._files.setdefault(shard, os.open(self.shards[shard], os.O_RDONLY))
        return os.pread(file, int(self.length[index]), int(self.offset[index]))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}  # descriptors belong to one process

    def take(self, indices: np.ndarray, part: str) -> LabelledImages:
        """Return the samples at ``indices``; ``part`` names them in the fingerprint."""
        return LabelledImages(
            self.path, self.shards, self.shard[indices], self.offset[indices],
            self.length[indices], self.label[indices], self.classes,
            digest([self.fingerprint, part]), self.set_aside,
        )  # fmt: skip

    def split(self, train: float | int, seed: int) -> tuple[LabelledImages, LabelledImages]:
        """Split every class at random: a share (float) or a number (int) of images to train on.

        Raises UsageError where a class would have nothing left on either side.
        """
        if not math.isfinite(train):
            raise UsageError(f"train is {train}, expected a share or a number of images")
        rng = np.random.default_rng([seed, self.classes])
        chosen: list[np.ndarray] = []
        rest: list[np.ndarray] = []
        for label in np.unique(self.label):
            own = rng.permutation(np.flatnonzero(self.label == label))
            count = round(train * len(own)) if isinstance(train, float) else train
            if not 0 < count < len(own):
                raise UsageError(
                    f"{self.path}: class {label} has {len(own)} images; {train} to train on "
                    "leaves none on one side"
                )
            chosen.append(own[:count])
            rest.append(own[count:])
        parts = np.sort(np.concatenate(chosen)), np.sort(np.concatenate(rest))
        return self.take(parts[0], f"train {train} {seed}"), self.take(
            parts[1], f"test {train} {seed}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return what a run records about its data."""
        return {
            "path": str(self.path),
            "samples": len(self),
            "classes": self.classes,
            "fingerprint": self.fingerprint,
        }


def open_labelled(path: Path, run: Path | None) -> LabelledImages:
    """Index every tar of a folder; samples without an image or a label are set aside.

    Their fingerprint is taken on behalf of ``run``, whose folder may keep digests of shards;
    without a run it stays empty.

    The number of classes is the highest label + 1, or that of ``classnames.txt`` if there is
    one. Raises DataError when nothing is usable.
    """
    found = find_shards(path)
    rows: list[tuple[int, int, int, int]] = []
    aside = 0
    for number, shard in enumerate(track(found.shards, "indexing", len(found.shards), "shards")):
        with open(shard, "rb") as file:
            for sample in tar.samples(shard):
                image, label = image_member(sample), sample.members.get("cls")
                if image is None or image.size > images.MAX_BYTES or label is None:
                    aside += 1
                    continue
                value = _label(file, label)
                if value is None:
                    aside += 1
                    continue
                rows.append((number, image.data, image.size, value))
    if not rows:
        raise DataError(f"{path}: no sample with an image and a class label (KEY.cls) found")
    if aside:
        warn(f"{path}: {aside:,} samples without a usable image or class label set aside")
    table = np.array(rows, np.int64)
    classes = max(int(table[:, 3].max()) + 1, _named_classes(path))
    return LabelledImages(
        path, found.shards, table[:, 0].astype(np.int32), table[:, 1],
        table[:, 2].astype(np.int32), table[:, 3].astype(np.int32), classes,
        "" if run is None else pin(found, run).fingerprint, aside,
    )  # fmt: skip


def _label(file, member: tar.Member) -> int | None:
    if member.size > MAX_LABEL_BYTES:
        return None
    text = tar.read_member(file, member).strip()
    if not text.isdigit():
        return None
    return int(text) if int(text) < MAX_CLASSES else None


def _named_classes(path: Path) -> int:
    file = path / CLASSNAMES
    return len(file.read_text("utf-8", "replace").splitlines()) if file.is_file() else 0
