"""The fast way through a tar finds what the slow way finds, or leaves the tar to it."""

import io
import json
import tarfile

import numpy as np
import pytest
from datacomp.pools import tar
from datacomp.pools.identity import uid_of_sample
from datacomp.pools.tar_uniform import IrregularTarError, uniform_batches
from hypothesis import given, settings
from hypothesis import strategies as st

SPAN = 4096


def slowly(data):
    """Return what the index needs of each sample, taken one by one, or the kind of refusal."""
    window, found = tar.Memory(memoryview(data)), []
    try:
        for sample in tar.samples_in(window, "x"):
            members = [(ext, one.data, one.size) for ext, one in sample.members.items()]
            uid = uid_of_sample(window, sample)
            found.append((uid, sample.key, sample.start, sample.end, members))
    except ValueError as error:
        return type(error)
    return found


def fast(data):
    """Return the same, all at once; None for a tar left to the slow way."""

    def read(offset, size):
        assert offset >= 0
        return data[offset : offset + size]

    found = []
    try:
        for batch in uniform_batches(read, len(data), SPAN):
            ends = np.cumsum(batch.key_lengths)
            for row, start in enumerate(batch.starts.tolist()):
                key = batch.keys[ends[row] - batch.key_lengths[row] : ends[row]].decode()
                places = zip(batch.data[row].tolist(), batch.sizes[row].tolist(), strict=True)
                members = [(e, *place) for e, place in zip(batch.extensions, places, strict=True)]
                uid = batch.uids[32 * row : 32 * row + 32].decode()
                found.append((uid, key, start, int(batch.ends[row]), members))
    except IrregularTarError:
        return None
    return found


def sample(number, image=b"\xff" * 700, caption=b"a caption", order=("jpg", "json", "txt"), **more):
    values = {"url": "http://x", "uid": f"{number:032x}", "exif": '{"a": 1}', **more}
    files = {"jpg": image, "json": json.dumps(values, indent=4).encode(), "txt": caption}
    return [(f"{number:05d}.{extension}", files[extension]) for extension in order]


def timed(files):
    """Return a tar with a PAX header of a time before every member, as webdataset writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for number, (name, data) in enumerate(files):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000 + number / 16
            writer.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files(count, **more):
    return [file for number in range(count) for file in sample(number, **more)]


@pytest.mark.parametrize("write", [tar.tar_bytes, timed])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"order": ("json", "jpg", "txt")},
        {"order": ("txt", "json", "jpg")},
        {"order": ("jpg", "json")},
        {"image": b"", "caption": b""},
        {"caption": b"x" * 9000, "exif": "é" * 5000},
    ],
    ids=["", "image second", "image last", "no caption", "empty", "long"],
)
def test_the_same_is_found(write, more):
    data = write(files(7, **more))
    assert fast(data) == slowly(data)
    assert len(fast(data)) == 7


def test_more_samples_than_are_checked_at_once():
    data = tar.tar_bytes(files(2100, image=b"x"))
    assert fast(data) == slowly(data)
    assert fast(data[: -2 * tar.BLOCK]) is None  # without its end it may be only a part


@pytest.mark.parametrize(
    "odd",
    [
        [("00009.jpg", b"x"), ("00009.txt", b"")],
        sample(9, order=("json", "jpg", "txt")),
        sample(3),
        sample(9, uid="0" * 31 + "A"),
        sample(9, uid=7),
        [("00009.JPG", b"x"), ("00009.json", b"{}"), ("00009.txt", b"")],
        [("00009.jpg", b"x"), ("00009.json", b'{"uid": "1"'), ("00009.txt", b"")],
        [("00009.jpg", b"x"), ("00009.json", b"[]"), ("00009.txt", b"")],
        [("a/00009.jpg", b"x"), ("a/00009.json", b"{}"), ("a/00009.txt", b"")],
        [("00009.jpg", b"x"), ("00010.json", b"{}"), ("00009.txt", b"")],
    ],
    ids=["a member less", "order", "key again", "upper case", "number", "extension", "cut short",
         "list", "folder", "mixed"],
)  # fmt: skip
def test_a_sample_unlike_the_others_is_left_to_the_slow_way(odd):
    assert fast(tar.tar_bytes([*files(5), *odd])) is None


TARS = [tar.tar_bytes(files(3, image=b"x" * 30)), timed(files(3, image=b"x" * 30))]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(TARS), st.data())
def test_whatever_is_damaged_the_fast_way_finds_nothing_else(whole, data):
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(whole) // tar.BLOCK - 1)) * tar.BLOCK
        place += data.draw(st.one_of(st.integers(0, 159), st.integers(0, 511)))
        broken[place] = data.draw(st.one_of(st.sampled_from(b"\0 0178./xgL5"), st.integers(0, 255)))
    broken = bytes(broken[: data.draw(st.one_of(st.none(), st.integers(1, len(whole))))])
    found = fast(broken)
    assert found is None or found == slowly(broken)
