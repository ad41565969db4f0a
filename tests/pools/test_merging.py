"""Sorted subsets are merged a little at a time, into what sorting all at once gives."""

import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.pools import merging
from datacomp.pools.engine import Local
from datacomp.pools.merging import Merged, merge_files, merge_subsets, walk
from datacomp.pools.subset_files import SubsetFile
from datacomp.pools.uids import UID_DTYPE, digest_of_uids, save_subset, sort_uids
from hypothesis import given, settings
from hypothesis import strategies as st

halves = st.integers(0, 3) | st.integers(0, 2**64 - 1) | st.just(2**64 - 1)
subsets = st.lists(st.lists(st.tuples(halves, halves), max_size=30), max_size=6)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subsets")

    def write(found):
        files = []
        for number, uids in enumerate(found):
            files.append(folder / f"{number}.npy")
            save_subset(files[-1], sort_uids(np.array(uids, UID_DTYPE)))
        return files, folder

    return write


@settings(max_examples=60, deadline=None)
@given(subsets, st.integers(1, 20))
def test_files_are_merged(write, found, held):
    files, folder = write(found)
    every = sort_uids(np.array([uid for uids in found for uid in uids], UID_DTYPE))
    save_subset(folder / "expected", every)
    merged = merge_files(files, folder / "out", held)
    assert merged == Merged(len(every), digest_of_uids(every))
    assert (folder / "out").read_bytes() == (folder / "expected").read_bytes()


def test_no_more_is_held_than_said(write, monkeypatch):
    sizes = []
    monkeypatch.setattr(merging, "sort_uids", lambda uids: sizes.append(len(uids)) or uids)
    draws = np.random.default_rng(0).integers(0, 2**63, (4, 5000, 2))
    files, folder = write([[tuple(map(int, uid)) for uid in part] for part in draws])
    assert merge_files(files, folder / "out", 1000).count == 20_000
    assert max(sizes) <= 1000
    assert len(sizes) < 64


def test_a_long_source_beside_short_ones_is_not_walked_in_crumbs(write):
    draws = np.random.default_rng(0).integers(0, 2**63, (20_000, 2))
    every = [tuple(map(int, uid)) for uid in draws]
    files, _ = write([every[:10_000], *(every[first::50] for first in range(50))])
    sources = [SubsetFile.of(file) for file in files]
    assert len(list(walk(sources, 1000))) < 200


def test_many_files_are_merged_in_groups(write, monkeypatch, tmp_path):
    monkeypatch.setattr(merging, "OPEN", 3)
    files, folder = write([[(number % 4, number)] for number in range(20)])
    assert merge_subsets(files, folder / "out", tmp_path, Local(1)) == merge_files(
        files, folder / "again"
    )
    assert (folder / "out").read_bytes() == (folder / "again").read_bytes()
    assert len(list(tmp_path.iterdir())) == 7 + 3


def test_what_is_no_subset_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(DataError, match=r"x\.npy: dtype <i8, shape \(3,\), but a subset has"):
        merge_files([tmp_path / "x.npy"], tmp_path / "out")
