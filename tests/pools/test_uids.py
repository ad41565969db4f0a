"""Uids and the subset file format: exact bytes, and nothing unsorted or foreign gets in."""

import hashlib
import resource

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, StorageError
from datacomp.pools import uids
from hypothesis import given
from hypothesis import strategies as st

halves = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
pairs = st.lists(st.tuples(halves, halves), max_size=30)


def records(values):
    return np.array(values, uids.UID_DTYPE)


def test_uids_are_the_first_128_bits_of_sha256():
    expected = hashlib.sha256(b"image\0caption").hexdigest()[:32]
    assert uids.uid_of_bytes(b"image", b"caption") == expected
    assert (
        uids.uid_of_url("http://x/ä", "b")
        == hashlib.sha256("http://x/ä\0b".encode()).hexdigest()[:32]
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [("0" * 32, True), ("0123456789abcdef" * 2, True), ("A" * 32, False), ("0" * 31, False),
     ("0" * 33, False), ("0" * 32 + "\n", False), (None, False), (0, False)],
)  # fmt: skip
def test_is_uid(text, answer):
    assert uids.is_uid(text) is answer


@given(pairs)
def test_hex_and_records_are_two_spellings(values):
    text = [f"{high:016x}{low:016x}" for high, low in values]
    array = uids.from_hex(text)
    assert array.tolist() == values
    assert uids.to_hex(array) == text


@given(pairs)
def test_sorting_agrees_with_python(values):
    array = records(values)
    assert uids.sort_uids(array).tolist() == sorted(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uids, "_FIRST_BLOCK", 1)
        patch.setattr(uids, "_BLOCK", 2)
        assert uids.is_sorted(array) == (values == sorted(values))


@given(st.lists(st.integers(0, 199), max_size=8), st.randoms(use_true_random=False))
def test_hashes_that_share_their_first_bits_are_sorted_too(shared, draw):
    values = [(draw.getrandbits(64), draw.getrandbits(64)) for _ in range(200)]
    values += [(values[n][0] ^ draw.getrandbits(9), draw.getrandbits(64)) for n in shared]
    values += [values[n] for n in shared[:2]]
    assert uids.sort_uids(records(values)).tolist() == sorted(values)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 16), st.integers(0, 2**32))
def test_uids_with_any_number_of_bytes_in_common_are_sorted(common, alike, seed):
    raw = np.random.default_rng(seed).integers(0, 256, (300, 16), np.uint8)
    raw[:, :alike] = list(common[:alike])
    array = uids.from_hex([row.tobytes().hex() for row in raw])
    before = array.tolist()
    for known in range(min(alike, 4) + 1):
        assert uids.sort_alike(array, known).tolist() == sorted(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uids, "_AT_ONCE", 100)
        assert uids.sort_uids(array).tolist() == sorted(before)
    assert array.tolist() == before


@given(pairs)
def test_from_halves(values):
    array = records(values)
    assert uids.from_halves(array["f0"], array["f1"]).tolist() == values


def test_save_subset_writes_the_format_of_datacomp(tmp_path):
    path = tmp_path / "s.npy"
    values = [(2, 1), (1, 2**64 - 1), (1, 5)]
    uids.save_subset(path, records(values))
    theirs = tmp_path / "theirs.npy"
    np.save(theirs, np.sort(np.array(values, np.dtype("u8,u8"))))
    assert path.read_bytes() == theirs.read_bytes()
    assert path.read_bytes()[:8] == b"\x93NUMPY\x01\x00"
    assert uids.load_subset(path).tolist() == sorted(values)


def test_repetitions_are_kept(tmp_path):
    uids.save_subset(tmp_path / "s.npy", records([(1, 1), (1, 1), (0, 9)]))
    assert uids.load_subset(tmp_path / "s.npy").tolist() == [(0, 9), (1, 1), (1, 1)]


def test_the_digest_is_that_of_the_payload(tmp_path):
    array = uids.sort_uids(records([(3, 4), (1, 2)]))
    uids.save_subset(tmp_path / "s.npy", array)
    payload = (tmp_path / "s.npy").read_bytes()[128:]
    assert uids.digest_of_uids(array) == hashlib.sha256(payload).hexdigest()


def test_an_empty_subset_is_a_subset(tmp_path):
    uids.save_subset(tmp_path / "s.npy", records([]))
    assert len(uids.load_subset(tmp_path / "s.npy")) == 0
    assert uids.to_hex(records([])) == []
    assert len(uids.from_hex([])) == 0


def test_large_files_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(uids, "MAPPED_FROM_BYTES", 100)
    uids.save_subset(tmp_path / "s.npy", records([(1, 2)]))
    array = uids.load_subset(tmp_path / "s.npy")
    assert isinstance(array, np.memmap)
    assert array.tolist() == [(1, 2)]


def refusal(path):
    with pytest.raises(DataError) as caught:
        uids.load_subset(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unsorted_subset_is_refused(tmp_path):
    path = tmp_path / "s.npy"
    np.save(path, records([(1, 2), (1, 1)]))
    assert refusal(path) == (
        f"{path}: the uids are not sorted; a subset must be in lexicographic order "
        "(sort it with numpy's array.sort() and save it again)"
    )


def test_a_foreign_dtype_is_refused(tmp_path):
    path = tmp_path / "s.npy"
    np.save(path, np.arange(4))
    assert refusal(path) == (
        f"{path}: dtype <i8, shape (4,), but a subset has dtype 'u8,u8' (little-endian), shape (n,)"
    )
    np.save(path, np.zeros(2, ">u8,>u8"))
    assert "but a subset has dtype 'u8,u8' (little-endian)" in refusal(path)
    np.save(path, np.zeros((2, 2), "u8,u8"))
    assert "shape (2, 2)" in refusal(path)


def test_pickles_are_refused_unread(tmp_path):
    path = tmp_path / "s.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    assert "dtype |O" in refusal(path)


def test_what_is_no_npy_is_refused(tmp_path):
    path = tmp_path / "s.npy"
    for data in (b"", b"hello", b"\x93NUMPY\x01\x00\x10\x00__import__('os')", b"\x93NUMPY\x09\x00"):
        path.write_bytes(data)
        assert refusal(path).startswith(f"{path}: not a readable .npy subset: ")
    with path.open("wb") as file:
        np.savez(file, a=records([(1, 1)]))
    assert refusal(path).startswith(f"{path}: not a readable .npy subset: the magic string")


@pytest.mark.parametrize(
    "header", ["{'descr': (", "{'descr': \"\"\"", "-" * 5000 + "1", "{1: 2, 'a': 3}", "(" * 9000,
               "{'descr': '<u8,<u8', 'fortran_order': False, 'shape': (True,)}", "1 if", "\0", ""],
)  # fmt: skip
def test_a_header_that_is_none_is_refused_in_one_line(tmp_path, header):
    path = tmp_path / "s.npy"
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16))
    said = refusal(path)
    assert said.startswith(f"{path}: not a readable .npy subset: ")
    assert "\n" not in said


def test_a_truncated_or_lying_header_is_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "s.npy"
    uids.save_subset(path, records([(1, 1), (2, 2)]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert refusal(path) == (
        f"{path}: 159 bytes, but its header promises 2 uids (160 bytes); make or copy it again"
    )
    path.write_bytes(whole.replace(b"(2,)", b"(9999999999999,)".ljust(4))[: len(whole)])
    assert "but its header promises 9,999,999,999,999 uids" in refusal(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(
        MissingError, match="no such subset file; make one with 'datacomp filter run'"
    ):
        uids.load_subset(tmp_path / "none.npy")


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "s.npy").mkdir()
    with pytest.raises(StorageError, match="a folder stands where a file should be written"):
        uids.save_subset(tmp_path / "s.npy", records([(1, 1)]))
    assert [path.name for path in tmp_path.iterdir()] == ["s.npy"]


def test_a_full_disk_is_told_as_such(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=r"subset\.npy: the file would exceed"):
            uids.save_subset(tmp_path / "subset.npy", np.zeros(1000, uids.UID_DTYPE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@given(pairs, pairs)
def test_members_are_found_by_halving(some, among):
    ordered = uids.sort_uids(records(among))
    found = uids.members_of(records(some), ordered)
    assert found.tolist() == [pair in among for pair in some]
