import pickle

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.evaluate.vision.labelled import open_labelled


def test_every_image_is_at_hand_by_number(labelled, square):
    data = open_labelled(labelled, None)
    assert (len(data), data.classes, data.set_aside) == (80, 4, 0)
    assert data.label[:8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert data.read(0) == square(0, 0)
    assert data.read(79) == square(3, 79)
    assert pickle.loads(pickle.dumps(data)).read(41) == data.read(41)


def test_samples_without_image_or_label_are_set_aside(tmp_path, capsys, square, write_tar):
    files = [
        ("a.png", square(0, 0)), ("a.cls", b"5\n"), ("b.png", square(0, 1)),
        ("c.cls", b"1"), ("d.png", square(0, 2)), ("d.cls", b"-1"),
        ("e.png", square(0, 3)), ("e.cls", "²".encode()),
        ("f.png", square(0, 4)), ("f.cls", b"9" * 20),
    ]  # fmt: skip
    write_tar(tmp_path / "0.tar", files)
    data = open_labelled(tmp_path, None)
    assert (len(data), data.classes, data.set_aside) == (1, 6, 5)
    assert "5 samples without a usable image or class label set aside" in capsys.readouterr().err


def test_class_names_tell_the_number_of_classes(tmp_path, square, write_tar):
    write_tar(tmp_path / "0.tar", [("a.png", square(0, 0)), ("a.cls", b"1")])
    (tmp_path / "classnames.txt").write_text("one\ntwo\nthree\n")
    assert open_labelled(tmp_path, None).classes == 3


def test_shards_without_labels_are_refused(tmp_path, square, write_tar):
    write_tar(tmp_path / "0.tar", [("a.png", square(0, 0)), ("a.txt", b"a caption")])
    with pytest.raises(DataError, match=r"no sample with an image and a class label \(KEY.cls\)"):
        open_labelled(tmp_path, None)


@pytest.mark.parametrize(("train", "count"), [(0.25, 5), (3, 3)])
def test_a_split_takes_the_same_part_of_every_class(labelled, train, count):
    data = open_labelled(labelled, None)
    inner, outer = data.split(train, seed=7)
    assert np.bincount(inner.label).tolist() == [count] * 4
    assert len(inner) + len(outer) == 80
    assert not set(zip(inner.shard, inner.offset, strict=True)) & set(
        zip(outer.shard, outer.offset, strict=True)
    )
    again, _ = data.split(train, seed=7)
    assert again.fingerprint == inner.fingerprint != outer.fingerprint
    assert (again.offset == inner.offset).all()
    other, _ = data.split(train, seed=8)
    assert (other.offset != inner.offset).any()


@pytest.mark.parametrize("train", [20, 0, 0.001, 0.999])
def test_a_split_leaves_images_on_both_sides(labelled, train):
    with pytest.raises(UsageError, match=r"class 0 has 20 images; .* leaves none on one side"):
        open_labelled(labelled, None).split(train, seed=0)


def test_a_share_is_a_number(labelled):
    with pytest.raises(UsageError, match="train is nan, expected a share or a number of images"):
        open_labelled(labelled, None).split(float("nan"), seed=0)
