import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.evaluate.loader_speed import LoaderSpeed, measure_loader
from datacomp.evaluate.model_speed import ModelSpeed, measure_model
from datacomp.evaluate.scales import get_scale
from datacomp.pools.tar import tar_bytes


def shards(folder, picture, count):
    files = []
    for number in range(count):
        files += [(f"{number}.png", picture(number)), (f"{number}.txt", b"a caption")]
    (folder / "0.tar").write_bytes(tar_bytes(files))
    return folder


def test_each_step_is_measured(tmp_path, picture):
    folder = shards(tmp_path, picture, 40)
    speed = measure_loader(folder, (1,), seconds=0.1, scale=get_scale("demo"), device="cpu")
    assert list(speed.batches) == [0, 1]
    assert (speed.image_size, speed.model.model, speed.model.precision) == (
        32,
        "datacomp-demo",
        "fp32",
    )
    assert speed.model.samples > 0
    assert speed.read > speed.decode > 0
    assert speed.bytes_read > 40 * speed.read
    assert all(rate > 0 for rate in speed.batches.values())
    assert speed.waits_for in ("reading", "decoding", "augmentation", "model")


def test_what_is_waited_for_takes_the_largest_share():
    assert LoaderSpeed(100, 1, 90, {0: 80}, 224).waits_for == "reading"
    assert LoaderSpeed(1000, 1, 100, {0: 80}, 224).waits_for == "decoding"
    assert LoaderSpeed(1000, 1, 500, {0: 80, 2: 2000}, 224).waits_for == "augmentation"
    assert LoaderSpeed(100, 1, 99, {}, 224).waits_for == "reading"


@pytest.mark.parametrize(("rate", "waits_for"), [(149, "model"), (151, "decoding")])
def test_a_model_slower_than_the_fastest_loader_is_waited_for(rate, waits_for):
    model = ModelSpeed("ViT-B-32", "cpu", "fp32", 8, 224, rate)
    assert LoaderSpeed(1000, 1, 100, {0: 80, 2: 150}, 224, model).waits_for == waits_for


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no such folder of shards"):
        measure_loader(tmp_path / "none")
    for files in ([("a.txt", b"no image")], [("a.txt", b"broken"), ("a.png", b"?")]):
        (tmp_path / "0.tar").write_bytes(tar_bytes(files))
        with pytest.raises(DataError, match="no sample with an image and a caption found"):
            measure_loader(tmp_path, seconds=0.05)
    with pytest.raises(UsageError, match="seconds are more than 0"):
        measure_loader(tmp_path, seconds=0)
    with pytest.raises(UsageError, match="precision is 'int8', expected one of: fp32, amp"):
        measure_model(get_scale("demo"), "cpu", "int8")


def test_the_model_trains_in_other_precisions():
    speed = measure_model(get_scale("demo"), "cpu", "amp_bf16", seconds=0.01)
    assert (speed.batch, speed.precision) == (8, "amp_bf16")
    assert speed.samples > 0
