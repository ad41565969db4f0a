"""Synthetic images for torch, drawn as they are needed: nothing is written to disk.

    dataset = SyntheticDataset(VisualAtom(classes=100, instances=100), transform)
    loader = DataLoader(dataset, batch_size=256, shuffle=True, num_workers=8)

Drawing an image takes no longer than decoding its PNG would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingError, UsageError
from .classes import TABLE, ClassTable
from .contract import ClassRecord, Generator, Picture

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError:
    raise MissingError(
        "data sets for torch need torch; install it with: pip install -e '.[train]'"
    ) from None

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[["Image"], Any]


class SyntheticDataset(Dataset[tuple[Any, int]]):
    """All images of a generator by index: class after class of each instance.

    An item is (image, label). ``transform`` gets an RGB PIL image; without one the image is a
    uint8 tensor of shape (3, size, size). Labels count from 0. Classes are found when the data
    set is made, or read from ``folder``, where a set of this generator lies.
    """

    def __init__(
        self, generator: Generator, transform: Transform | None = None, folder: Path | None = None
    ) -> None:
        self.generator, self.transform = generator, transform
        self.records = class_records(generator, folder)

    def __len__(self) -> int:
        return self.generator.total

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        instance, label = divmod(index, self.generator.classes)
        (picture,) = self.generator.pictures(self.records[label], instance, instance + 1)
        return _finished(picture, self.transform), label


class SyntheticStream(IterableDataset[tuple[Any, int]]):
    """The images of a generator in a random order of blocks, split over workers and processes.

    Each image comes once an epoch; ``set_epoch`` gives another order. ``rank`` and ``world``
    are those of this process in distributed training (None: torch.distributed's, if it runs).
    Processes and workers get shares that differ by at most one block of instances.
    """

    def __init__(
        self,
        generator: Generator,
        transform: Transform | None = None,
        folder: Path | None = None,
        *,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        self.generator, self.transform, self.seed = generator, transform, seed
        self.records = class_records(generator, folder)
        self.epoch = 0
        self.rank, self.world = _place(rank, world)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return how many images this process gets."""
        return sum(last - first for _, first, last in self._share(self.rank, self.world))

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for label, first, last in self._share(self.rank * workers + number, self.world * workers):
            for picture in self.generator.pictures(self.records[label], first, last):
                yield _finished(picture, self.transform), label

    def _share(self, part: int, parts: int) -> Iterator[tuple[int, int, int]]:
        """Yield label, first and last instance (exclusive) of one part's blocks."""
        one = self.generator
        rows = -(-one.instances // one.block)
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        blocks = torch.randperm(rows * one.classes, generator=order)[part::parts]
        for block in blocks.tolist():
            row, label = divmod(block, one.classes)
            yield label, row * one.block, min((row + 1) * one.block, one.instances)


def class_records(generator: Generator, folder: Path | None = None) -> list[ClassRecord]:
    """Return the records of all classes, read from the set in ``folder`` or found anew."""
    if folder is None:
        return [record for group in generator.groups() for record in generator.find(group)]
    if not (folder / TABLE).is_file():
        raise MissingError(f"{folder}: no {TABLE}; make the set with 'datacomp synth' first")
    ids = generator.class_ids
    return list(ClassTable(folder, ids[0]).records(ids[0], ids[-1] + 1))


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    distributed = torch.distributed
    if rank is None or world is None:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise UsageError(f"rank is {rank} of {world} processes")
    return rank, world


def _finished(picture: Picture, transform: Transform | None) -> Any:
    pixels = picture.pixels
    if transform is not None:
        from PIL import Image

        return transform(Image.fromarray(pixels).convert("RGB"))
    tensor = torch.from_numpy(pixels.copy())
    return tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor.expand(3, -1, -1)
