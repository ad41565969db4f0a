"""Images for torch: the same as on disk, split over workers and processes."""

import numpy as np
import pytest
import torch
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.torch_data import SyntheticDataset, SyntheticStream
from datacomp.pools.synthetic.visualatom import VisualAtom
from torch.utils.data import DataLoader

GENERATOR = VisualAtom(classes=5, instances=4, size=32, start_class=10)


def test_images_by_index():
    dataset = SyntheticDataset(GENERATOR)
    assert len(dataset) == 20
    image, label = dataset[7]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.uint8, 2)
    assert np.array_equal(image[1], GENERATOR.picture(12, 1).pixels)
    with pytest.raises(IndexError, match="image 20 of 20"):
        dataset[20]


def test_a_transform_gets_an_rgb_image(tmp_path):
    build(Plan(GENERATOR, tmp_path / "set"), 1)
    dataset = SyntheticDataset(GENERATOR, lambda image: (image.mode, image.size), tmp_path / "set")
    assert dataset[0] == (("RGB", (32, 32)), 0)
    with pytest.raises(MissingError, match=r"no classes\.parquet"):
        SyntheticDataset(GENERATOR, folder=tmp_path)
    with pytest.raises(DataError, match="does not hold the classes 10 to 15; ask for those"):
        SyntheticDataset(VisualAtom(classes=6, start_class=10), folder=tmp_path / "set")


def items(stream, workers=0):
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    return sorted((label, image.numpy().tobytes()) for image, label in loader)


def test_every_image_once_whatever_the_workers():
    stream = SyntheticStream(GENERATOR)
    everything = items(stream)
    assert len(everything) == len(stream) == 20
    assert everything == sorted(
        (label, image.numpy().tobytes()) for image, label in
        (SyntheticDataset(GENERATOR)[n] for n in range(20))
    )  # fmt: skip
    assert items(stream, workers=2) == everything
    parts = [SyntheticStream(GENERATOR, rank=rank, world=3) for rank in range(3)]
    assert [len(part) for part in parts] == [7, 7, 6]
    assert sorted(item for part in parts for item in items(part)) == everything


def test_another_epoch_is_another_order():
    stream = SyntheticStream(GENERATOR, seed=1)
    first, again = ([label for _, label in stream] for _ in range(2))
    stream.set_epoch(1)
    assert first == again
    assert first != [label for _, label in stream]


def test_exact_mode_is_served_too():
    generator = VisualAtom(classes=2, instances=3, size=32, mode="exact")
    dataset = SyntheticDataset(generator)
    assert np.array_equal(dataset[5][0][0], generator.picture(1, 2).pixels)


def test_ranks_are_checked():
    with pytest.raises(UsageError, match="rank is 3 of 3 processes"):
        SyntheticStream(GENERATOR, rank=3, world=3)
