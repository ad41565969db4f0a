import hashlib
import io
import json
import tarfile

import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools.sources import Record, SetAside, open_source
from datacomp.pools.tar import tar_bytes
from datacomp.pools.uids import uid_of_bytes


def read(path, **options):
    return list(open_source("webdataset", path, **options).records())


def aside(path):
    return [(item.item, item.reason) for item in read(path) if isinstance(item, SetAside)]


def keys(path):
    return [item.text for item in read(path) if isinstance(item, Record)]


@pytest.fixture
def sample(picture):
    def sample(number, **changes):
        members = {
            "jpg": picture(number, "JPEG"),
            "json": json.dumps({"key": "k", "status": "success", "similarity": 0.5}).encode(),
            "txt": f"caption {number}".encode(),
        } | changes
        return [(f"{number:09d}.{name}", d) for name, d in members.items() if d is not None]

    return sample


def test_samples_become_records_with_their_place(tmp_path, sample, picture):
    files = sample(1) + sample(2, json=None)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "0.tar").write_bytes(tar_bytes(files))
    data = picture(1, "JPEG")
    first, second = read(tmp_path)
    assert first == Record(
        uid_of_bytes(data, b"caption 1"), None, "caption 1", 24, 24,
        hashlib.sha256(data).hexdigest(), "sub/0.tar", 512, len(data), {"similarity": 0.5},
        "sub/0.tar/000000001",
    )  # fmt: skip
    place = (tmp_path / "sub" / "0.tar").read_bytes()[second.offset : second.offset + second.length]
    assert place == picture(2, "JPEG")
    assert read(tmp_path / "sub" / "0.tar")[0].shard == "0.tar"


def test_a_uid_in_the_json_is_kept_if_it_is_one(tmp_path, sample):
    uid = "ab" * 16
    for i, given in enumerate((uid, uid.upper(), 5, uid[:-1])):
        json_file = json.dumps({"uid": given}).encode()
        (tmp_path / f"{i}.tar").write_bytes(tar_bytes(sample(i, json=json_file)))
    uids = [record.uid for record in read(tmp_path)]
    assert uids[0] == uid
    assert uid not in uids[1:]
    assert len(set(uids)) == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jpg": None}, "no_image"),
        ({"jpg": b"broken"}, "image_broken"),
        ({"txt": b"\xff"}, "caption_not_utf8"),
        ({"txt": b"x" * 2_000_000}, "caption_too_long"),
        ({"txt": None}, "no_caption"),
        ({"json": b"{"}, "json_broken"),
        ({"json": b" " * 2_000_000}, "json_too_long"),
    ],
)
def test_a_bad_sample_is_set_aside(tmp_path, sample, changes, reason):
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample(1) + sample(2, **changes) + sample(3)))
    assert aside(tmp_path) == [("0.tar/000000002", reason)]
    assert keys(tmp_path) == ["caption 1", "caption 3"]


def test_without_verify_only_the_header_is_read(tmp_path, sample, picture):
    cut = picture(1, "PNG")[:-300]
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample(1, jpg=None, png=cut)))
    assert aside(tmp_path) == [("0.tar/000000001", "image_broken")]
    assert read(tmp_path, verify=False)[0].width == 24


def test_a_tar_with_names_that_leave_it_is_set_aside_whole(tmp_path, sample):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in [*sample(1), ("../evil.jpg", b"x")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "0.tar").write_bytes(buffer.getvalue())
    (tmp_path / "1.tar").write_bytes(tar_bytes(sample(2)))
    assert aside(tmp_path) == [("0.tar", "shard_unsafe")]
    assert keys(tmp_path) == ["caption 2"]


def test_of_a_truncated_tar_the_whole_samples_are_kept(tmp_path, sample):
    whole = tar_bytes(sample(1) + sample(2) + sample(3))
    first_two = len(tar_bytes(sample(1) + sample(2))) - 1024
    for cut in (first_two + 700, first_two + 300):
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        assert keys(tmp_path)[0] == "caption 1"
        assert "caption 3" not in keys(tmp_path)
        assert aside(tmp_path) == [("0.tar", "shard_broken")]
    (tmp_path / "0.tar").write_bytes(b"no tar at all" * 100)
    assert read(tmp_path)[0].reason == "shard_broken"


def test_links_folders_and_unreadable_tars_are_named(tmp_path, sample):
    inner, outer = tmp_path / "in", tmp_path / "out"
    for path in (inner, outer):
        path.mkdir()
        (path / "1.tar").write_bytes(tar_bytes(sample(1)))
    (inner / "2.tar").symlink_to(outer / "1.tar")
    (inner / "3.tar").mkdir()
    (inner / ".4.tar").write_bytes(b"hidden")
    assert aside(inner) == [("2.tar", "outside_root")]
    assert keys(inner) == ["caption 1"]


def test_nothing_to_read_is_one_clear_line(tmp_path):
    with pytest.raises(MissingError) as caught:
        read(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such folder or tar"
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no .tar files found"
