import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from datacomp.errors import DataError, RunError
from datacomp.evaluate.set_aside import SetAsideLog
from datacomp.evaluate.vision import batches
from datacomp.evaluate.vision.batches import epoch_order, training_batches
from datacomp.evaluate.vision.labelled import open_labelled

HALF = ((0.5,) * 3, (0.5,) * 3)


def collected(data, recipe, first=0, workers=0, rank=0, world=1, aside=None):
    return list(training_batches(data, recipe, HALF, 3, first, workers, rank, world, aside))


def same(a, b):
    return all((x[0] == y[0]).all() and (x[1] == y[1]).all() for x, y in zip(a, b, strict=True))


@pytest.fixture
def heavy(tiny_recipe):
    """A recipe with every random augmentation there is."""
    return tiny_recipe(auto_augment="rand-m9-mstd0.5-inc1", erasing=0.5, horizontal_flip=0.5)


def test_batches_do_not_depend_on_workers_or_on_where_a_run_began(labelled, heavy):
    data = open_labelled(labelled, None)
    whole = collected(data, heavy)
    assert len(whole) == 10
    assert whole[0][0].shape == (16, 3, 16, 16)
    assert same(whole, collected(data, heavy, workers=2))
    assert same(whole[7:], collected(data, heavy, first=7))


def test_the_callers_generators_are_left_alone(labelled, heavy):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    collected(open_labelled(labelled, None), heavy)
    assert (torch.rand(3) == expected).all()


def test_processes_share_the_global_batch(labelled, heavy):
    data, recipe = open_labelled(labelled, None), heavy
    whole = collected(data, recipe)
    parts = [collected(data, recipe, rank=rank, world=2) for rank in (0, 1)]
    for rank in (0, 1):
        assert same([(images[rank::2], labels[rank::2]) for images, labels in whole], parts[rank])


def test_an_epoch_sees_every_image_once():
    order = epoch_order(100, epoch=3, seed=1, repeats=1)
    assert sorted(order) == list(range(100))
    assert (order != epoch_order(100, epoch=4, seed=1, repeats=1)).any()


def test_repeated_augmentation_shows_fewer_images_more_often():
    order = epoch_order(100, epoch=0, seed=0, repeats=3)
    assert len(order) == 100
    assert np.bincount(np.bincount(order)).tolist() == [66, 1, 0, 33]


def test_a_broken_image_is_replaced_by_the_next(labelled, tiny_recipe, tmp_path, square, write_tar):
    files = []
    for i in range(20):
        image = square(i % 4, i)
        files.append((f"{i:03d}.png", image[: len(image) // 2] if i == 4 else image))
        files.append((f"{i:03d}.cls", str(i % 4).encode()))
    write_tar(tmp_path / "0.tar", files)
    recipe = replace(tiny_recipe(), epochs=1, batch_size=20)
    aside = SetAsideLog(tmp_path / "aside.jsonl")
    ((_, labels),) = collected(open_labelled(tmp_path, None), recipe, aside=aside)
    assert aside.settle().counts == {"image_broken": 1}
    assert aside.settle().named[0].startswith("0.tar:004: image_broken (")
    assert np.bincount(labels).tolist() == [4, 6, 5, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_images_ends_the_run(tiny_recipe, tmp_path, write_tar, workers):
    write_tar(tmp_path / "0.tar", [("a.png", b"no picture"), ("a.cls", b"1")])
    with pytest.raises(DataError) as caught:
        collected(open_labelled(tmp_path, None), tiny_recipe(), workers=workers)
    assert str(caught.value) == f"{tmp_path}: 100 images in a row do not decode"


def test_a_shard_that_is_gone_is_no_broken_image(labelled, tiny_recipe, tmp_path):
    shutil.copytree(labelled, tmp_path / "data")
    data = open_labelled(tmp_path / "data", None)
    (tmp_path / "data/00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar: cannot be read: No such file"):
        collected(data, tiny_recipe(), workers=1)


def test_loader_processes_need_room_to_share(tiny_recipe, monkeypatch):
    """Without it torch's are killed, or hang; so it is looked for before."""
    recipe = tiny_recipe(batch_size=80)
    usage = shutil.disk_usage(".")._replace(free=900_000)
    monkeypatch.setattr(batches.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunError) as caught:
        batches.check_shared_memory(recipe, workers=2)
    assert str(caught.value) == (
        "loader processes share 1.0 MB of batches, but /dev/shm has 0.9 MB free; enlarge it "
        "(docker run --shm-size), or use --workers 0 or a smaller --batch-size"
    )
    batches.check_shared_memory(recipe, workers=1)
    batches.check_shared_memory(recipe, workers=0)
    batches.check_shared_memory(recipe, workers=2, world=2)
    monkeypatch.undo()
    limits = {batches.resource.RLIMIT_FSIZE: (100_000, -1)}
    monkeypatch.setattr(batches.resource, "getrlimit", limits.get)
    with pytest.raises(RunError) as caught:
        batches.check_shared_memory(recipe, workers=2)
    assert str(caught.value) == (
        "a batch of 0.2 MB is more than a file may have here (ulimit -f: 0.1 MB), and loader "
        "processes share it as one; raise the limit or use --workers 0"
    )


def test_a_loader_process_that_is_killed_is_told_in_a_line(labelled, tiny_recipe, monkeypatch):
    def kill(_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(batches, "decode", kill)
    with pytest.raises(RunError) as caught:
        collected(open_labelled(labelled, None), tiny_recipe(), workers=1)
    assert re.fullmatch(
        r"a loader process was killed \(DataLoader worker [^:\n]*\), most likely for memory; run "
        r"the same command again with fewer --workers",
        str(caught.value),
    )
