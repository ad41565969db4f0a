"""Images with class labels in tars (``KEY.png``, ``KEY.cls``), at hand in any order.

The whole set is an index of byte ranges, 20 bytes a sample, so that epochs can be shuffled
perfectly and a run can go on at any step without reading what came before.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...durable import digest
from ...errors import DataError, UsageError
from ...pools import images, tar, views
from ...pools.ranges import OpenFiles, is_remote
from ...pools.sources.base import image_member
from ...progress import track, warn
from ..data import TrainingData, find_shards, pin
from ..evalsets import CLASSNAMES

MAX_CLASSES = 1_000_000
MAX_LABEL = 2**31 - 1
MAX_LABEL_BYTES = 64


@dataclass(frozen=True)
class LabelledImages:
    """``n`` samples: shard (int32), offset (int64), length (int32) and label (int32), each (n,).

    ``shards`` are the places of the tars and ``names`` what they are called. Labels count from 0
    to ``classes`` - 1; ``numbers`` (int64) are those that stand for them in the tars.
    ``set_aside`` has tar, key and reason of each sample that cannot be used.
    """

    path: Path
    shards: tuple[str, ...]
    names: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray
    numbers: np.ndarray
    fingerprint: str
    set_aside: tuple[tuple[str, str, str], ...] = ()
    _opened: list[OpenFiles] = field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.label)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.numbers)

    def read(self, index: int) -> bytes:
        """Return the encoded image of a sample; raises DataError where its tar cannot be read."""
        if not self._opened:
            self._opened.append(OpenFiles())
        return self._opened[0].read(
            self.shards[self.shard[index]], int(self.offset[index]), int(self.length[index])
        )

    def name(self, index: int) -> tuple[str, str]:
        """Return tar and key of a sample; looks through the tar, for the index has no keys."""
        shard, offset = int(self.shard[index]), int(self.offset[index])
        if not is_remote(self.shards[shard]):
            for sample in tar.samples(self.shards[shard]):
                image = image_member(sample)
                if image is not None and image.data == offset:
                    return self.names[shard], sample.key
        return self.names[shard], f"byte {offset}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": []}  # descriptors belong to one process

    def take(self, indices: np.ndarray, part: str) -> LabelledImages:
        """Return the samples at ``indices``; ``part`` names them in the fingerprint."""
        return LabelledImages(
            self.path, self.shards, self.names, self.shard[indices], self.offset[indices],
            self.length[indices], self.label[indices], self.numbers,
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
                    f"{self.path}: class {self.numbers[label]} has {len(own)} images; {train} to "
                    "train on leaves none on one side"
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
            "class_numbers": _runs(self.numbers),
            "fingerprint": self.fingerprint,
        }


def open_labelled(path: Path, run: Path | None) -> LabelledImages:
    """Index every tar of a folder, or a view; samples without image or label are set aside.

    Their fingerprint is taken on behalf of ``run``, whose folder may keep digests of shards;
    without a run it stays empty.

    Classes are those of ``classnames.txt`` if there is one, else all that occur, in the order of
    their numbers. Raises DataError when nothing is usable.
    """
    found = find_shards(path)
    places, names = _tars(found)
    table = array("q")
    aside: list[tuple[str, str, str]] = []
    for shard, base, window, sample in _samples(found):
        image, label = image_member(sample), sample.members.get("cls")
        value = None if label is None else _label(window, label)
        if image is None or image.size > images.MAX_BYTES or value is None:
            reason = "no_image" if image is None else "no_label"
            reason = "image_unsafe" if image and image.size > images.MAX_BYTES else reason
            aside.append((names[shard], sample.key, reason))
        else:
            table.extend((shard, base + image.data, image.size, value))
    if not table:
        raise DataError(f"{path}: no sample with an image and a class label (KEY.cls) found")
    if aside:
        warn(f"{path}: {len(aside):,} samples without a usable image or class label set aside")
    columns = np.frombuffer(table, np.int64).reshape(-1, 4)
    numbers, labels = _classes(path, columns[:, 3])
    return LabelledImages(
        path, places, names, columns[:, 0].astype(np.int32), columns[:, 1].copy(),
        columns[:, 2].astype(np.int32), labels.astype(np.int32), numbers,
        "" if run is None else pin(found, run).fingerprint, tuple(aside),
    )  # fmt: skip


def _tars(found: TrainingData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the places of all tars, and their names."""
    if (found.path / views.METADATA).is_file():
        places = tuple(file.place for file in views.View.open(found.path).files)
        return places, places
    return found.shards, tuple(found.name(shard) for shard in found.shards)


def _samples(found: TrainingData) -> Iterator[tuple[int, int, tar.Window, tar.TarSample]]:
    """Yield number of the tar, offset that counts are from, bytes and members of each sample."""
    shards = enumerate(track(found.shards, "indexing", len(found.shards), "shards"))
    if not (found.path / views.METADATA).is_file():
        for number, shard in shards:
            with open(shard, "rb", buffering=0) as file:
                window = tar.Window(file.fileno())
                for sample in tar.samples_in(window, shard):
                    yield number, 0, window, sample
        return
    view = views.View.open(found.path)
    records = np.load(found.path / views.SAMPLES, mmap_mode="r", allow_pickle=False)
    at = 0
    for number, _ in shards:
        for sample in view.shard(number):
            base = int(records["block"][at]) * tar.BLOCK
            yield int(records["file"][at]), base, sample.window(), sample.found
            at += 1


def _classes(path: Path, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each class, and each sample's place among them."""
    named = _named_classes(path)
    if named == 0:
        numbers, labels = np.unique(values, return_inverse=True)
        if len(numbers) > MAX_CLASSES:
            raise DataError(f"{path}: {len(numbers):,} classes, more than {MAX_CLASSES:,}")
        return numbers, labels
    if values.max() >= named:
        raise DataError(f"{path}: class {values.max()} is none of the {named:,} in {CLASSNAMES}")
    return np.arange(named), values


def _runs(numbers: np.ndarray) -> list[list[int]]:
    """Return the first and the last of each run of neighbouring numbers."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    return [[int(run[0]), int(run[-1])] for run in np.split(numbers, breaks)]


def _label(window: tar.Window, member: tar.Member) -> int | None:
    if member.size > MAX_LABEL_BYTES:
        return None
    text = bytes(window(member.data, member.size)).strip()
    if not text.isdigit():
        return None
    return int(text) if int(text) <= MAX_LABEL else None


def _named_classes(path: Path) -> int:
    file = path / CLASSNAMES
    return len(file.read_text("utf-8", "replace").splitlines()) if file.is_file() else 0
