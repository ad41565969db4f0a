"""Subset files are read and written a little at a time, with the bytes of those written at once."""

import os

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools import subset_files
from datacomp.pools.subset_files import SubsetFile, subset_writer
from datacomp.pools.uids import digest_of_uids, from_halves, save_subset


def ascending(count):
    numbers = np.arange(count, dtype=np.uint64)
    return from_halves(numbers // 3, numbers)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 12_345])
def test_what_is_written_is_what_is_written_at_once(tmp_path, count):
    found = ascending(count)
    with subset_writer(tmp_path / "parts.npy") as writer:
        for first in range(0, count, 1000):
            writer.write(found[first : first + 1000])
    assert (writer.count, writer.digest) == (count, save_subset(tmp_path / "whole.npy", found))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_nothing_is_there_if_it_fails(tmp_path):
    with pytest.raises(TypeError), subset_writer(tmp_path / "x.npy") as writer:
        writer.write(None)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_a_part_is_read(tmp_path):
    save_subset(tmp_path / "x.npy", ascending(100))
    file = SubsetFile.of(tmp_path / "x.npy")
    assert file.count == 100
    assert file.read(40, 20).tolist() == ascending(100)[40:60].tolist()


@pytest.mark.parametrize("place", range(1, 8))
def test_order_is_verified_within_blocks_and_between_them(tmp_path, monkeypatch, place):
    monkeypatch.setattr(subset_files, "BLOCK", 3)
    found = ascending(8)
    save_subset(tmp_path / "x.npy", found)
    assert SubsetFile.of(tmp_path / "x.npy").verify() == digest_of_uids(found)
    found[[place - 1, place]] = found[[place, place - 1]]
    np.save(tmp_path / "x.npy", found)
    with pytest.raises(DataError, match=r"x\.npy: the uids are not sorted; "):
        SubsetFile.of(tmp_path / "x.npy").verify()


def test_a_file_that_changes_meanwhile_is_told(tmp_path):
    path = tmp_path / "x.npy"
    save_subset(path, ascending(10))
    file = SubsetFile.of(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match=r"x\.npy: changed while it was read; run the same"):
        file.read(0, 1)
    file = SubsetFile.of(path)
    path.unlink()
    with pytest.raises(DataError, match=r"x\.npy: changed while it was read; run the same"):
        file.verify()


def test_what_is_no_subset_is_refused(tmp_path):
    with pytest.raises(MissingError, match=r"x\.npy: no such subset file"):
        SubsetFile.of(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros(3, ">u8,>u8"))
    with pytest.raises(DataError, match=r"x\.npy: dtype .* but a subset has dtype 'u8,u8'"):
        SubsetFile.of(tmp_path / "x.npy")
