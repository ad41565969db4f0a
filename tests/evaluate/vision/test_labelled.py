import json
import os
import pickle
import resource

import numpy as np
import pytest
from datacomp.curate.shards import select_shards
from datacomp.errors import DataError, UsageError
from datacomp.evaluate.vision.labelled import open_labelled
from datacomp.pools import tar
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.visualatom import VisualAtom
from datacomp.pools.uids import from_hex, save_subset, sort_uids


def test_every_image_is_at_hand_by_number(labelled, square):
    data = open_labelled(labelled, None)
    assert (len(data), data.classes, data.set_aside) == (80, 4, ())
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
    assert (len(data), data.numbers.tolist(), data.label.tolist()) == (1, [5], [0])
    assert data.set_aside == (
        ("0.tar", "b", "no_label"), ("0.tar", "c", "no_image"), ("0.tar", "d", "no_label"),
        ("0.tar", "e", "no_label"), ("0.tar", "f", "no_label"),
    )  # fmt: skip
    assert "5 samples without a usable image or class label set aside" in capsys.readouterr().err


def test_class_names_tell_the_number_of_classes(tmp_path, square, write_tar):
    write_tar(tmp_path / "0.tar", [("a.png", square(0, 0)), ("a.cls", b"1")])
    (tmp_path / "classnames.txt").write_text("one\ntwo\nthree\n")
    data = open_labelled(tmp_path, None)
    assert (data.classes, data.label.tolist()) == (3, [1])
    (tmp_path / "classnames.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"class 1 is none of the 1 in classnames\.txt"):
        open_labelled(tmp_path, None)


def test_sets_that_begin_anywhere_are_joined(tmp_path):
    """Classes are counted, whatever number the first one has."""
    for first in (500, 0):
        part = tmp_path / "both" / str(first)
        build(Plan(VisualAtom(classes=500, instances=1, size=8, start_class=first), part), 1)
    data = open_labelled(tmp_path / "both" / "500", None)
    assert (data.classes, data.label.min(), data.label.max()) == (500, 0, 499)
    assert data.to_dict()["class_numbers"] == [[500, 999]]
    data = open_labelled(tmp_path / "both", None)
    assert (len(data), data.classes) == (1000, 1000)
    assert np.bincount(data.label).tolist() == [1] * 1000
    assert data.names[data.shard[data.label.tolist().index(700)]] == "500/00000.tar"
    assert data.to_dict()["class_numbers"] == [[0, 999]]


def test_labels_are_counted_in_the_order_of_their_numbers(tmp_path, square, write_tar):
    files = []
    for n, label in enumerate((7, 2_000_000_000, 8, 7)):
        files += [(f"{n}.png", square(0, n)), (f"{n}.cls", str(label).encode())]
    write_tar(tmp_path / "0.tar", files)
    data = open_labelled(tmp_path, None)
    assert data.label.tolist() == [0, 2, 1, 0]
    assert data.to_dict()["class_numbers"] == [[7, 8], [2_000_000_000, 2_000_000_000]]


def test_more_tars_than_files_may_be_open(tmp_path, square, write_tar):
    for n in range(300):
        write_tar(tmp_path / f"{n:03d}.tar", [("a.png", square(0, n)), ("a.cls", b"0")])
    data = open_labelled(tmp_path, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 140, hard))
    try:
        assert [data.read(n) for n in range(300)] == [square(0, n) for n in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert data.name(250) == ("250.tar", "a")


def test_a_view_is_read_where_its_tars_lie(tmp_path):
    whole, labels, uids = tmp_path / "set", {}, []
    build(Plan(VisualAtom(classes=4, instances=10, size=16, start_class=3), whole, per_shard=15), 1)
    for shard in sorted(whole.glob("*.tar")):
        with shard.open("rb") as file:
            for sample in tar.samples(shard):
                found = {name: tar.read_member(file, m) for name, m in sample.members.items()}
                labels[found["png"]] = int(found["cls"])
                uids.append(json.loads(found["json"])["uid"])
    save_subset(tmp_path / "half.npy", sort_uids(from_hex(uids[::3])))
    select_shards([whole], tmp_path / "half.npy", tmp_path / "view")
    view = open_labelled(tmp_path / "view", None)
    pictures = [view.read(n) for n in range(len(view))]
    assert (len(view), len(set(pictures)), view.numbers.tolist()) == (14, 14, [3, 4, 5, 6])
    assert [labels[picture] - 3 for picture in pictures] == view.label.tolist()


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
