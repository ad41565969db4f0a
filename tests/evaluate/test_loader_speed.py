import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.evaluate.loader_speed import LoaderSpeed, measure_loader
from datacomp.pools.tar import tar_bytes


def shards(folder, picture, count):
    files = []
    for number in range(count):
        files += [(f"{number}.png", picture(number)), (f"{number}.txt", b"a caption")]
    (folder / "0.tar").write_bytes(tar_bytes(files))
    return folder


def test_each_step_is_measured(tmp_path, picture):
    speed = measure_loader(shards(tmp_path, picture, 40), (1,), seconds=0.1, image_size=32)
    assert list(speed.batches) == [0, 1]
    assert speed.read > speed.decode > 0
    assert speed.bytes_read > 40 * speed.read
    assert all(rate > 0 for rate in speed.batches.values())
    assert speed.waits_for in ("reading", "decoding", "augmentation")


def test_what_is_waited_for_takes_the_largest_share():
    assert LoaderSpeed(100, 1, 90, {0: 80}, 224).waits_for == "reading"
    assert LoaderSpeed(1000, 1, 100, {0: 80}, 224).waits_for == "decoding"
    assert LoaderSpeed(1000, 1, 500, {0: 80, 2: 2000}, 224).waits_for == "augmentation"
    assert LoaderSpeed(100, 1, 99, {}, 224).waits_for == "reading"


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no such folder of shards"):
        measure_loader(tmp_path / "none")
    for files in ([("a.txt", b"no image")], [("a.txt", b"broken"), ("a.png", b"?")]):
        (tmp_path / "0.tar").write_bytes(tar_bytes(files))
        with pytest.raises(DataError, match="no sample with an image and a caption found"):
            measure_loader(tmp_path, seconds=0.05)
    with pytest.raises(UsageError, match="seconds are more than 0"):
        measure_loader(tmp_path, seconds=0)
