import resource

import numpy as np
import pytest
from datacomp.errors import StorageError
from datacomp.pools.uid_sorter import UidSorter
from datacomp.pools.uids import UID_DTYPE, digest_of_uids
from hypothesis import given
from hypothesis import strategies as st

halves = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 300))
batches = st.lists(st.lists(st.tuples(halves, halves), max_size=12), max_size=5)


@given(batches)
def test_batches_come_back_in_order(values):
    sorter = UidSorter()
    for batch in values:
        sorter.add(np.array(batch, UID_DTYPE))
    every = sorted(uid for batch in values for uid in batch)
    assert sorter.count == len(every)
    assert [uid for piece in sorter.pieces() for uid in piece.tolist()] == every
    assert sorter.sorted().tolist() == every
    assert [uid for piece in sorter.pieces() for uid in piece.tolist()] == every


def test_many_uids_of_several_parts(tmp_path):
    random = np.random.default_rng(7)
    uids = random.integers(0, 2**64, (600_000, 2), np.uint64).view(UID_DTYPE).ravel()
    uids[::1000] = uids[1]  # one that comes again and again
    uids[7::1000]["f0"] = uids[1]["f0"]  # and some that only its second half tells apart
    sorter = UidSorter()
    for start in range(0, len(uids), 70_001):
        sorter.add(uids[start : start + 70_001])
    expected = np.sort(uids)
    digest = sorter.save(tmp_path / "few.npy")
    assert np.load(tmp_path / "few.npy").tobytes() == expected.tobytes()
    assert digest == digest_of_uids(expected)
    assert sorter.sorted().tobytes() == expected.tobytes()
    assert sorter.save(tmp_path / "again.npy") == digest


def test_what_fails_while_uids_are_written_leaves_nothing(tmp_path, monkeypatch):
    uids = np.random.default_rng(1).integers(0, 2**64, (300_000, 2), np.uint64).view(UID_DTYPE)
    sorter = UidSorter()
    sorter.add(uids.ravel())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(StorageError, match=r"s\.npy: the file would exceed"):
            sorter.save(tmp_path / "s.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    piece = sorter._piece
    monkeypatch.setattr(sorter, "_piece", lambda byte: piece(byte) if byte < 200 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sorter.save(tmp_path / "s.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_strided_piece_is_taken_as_it_is():
    uids = np.arange(40, dtype=np.uint64).view(UID_DTYPE)[::-2]
    sorter = UidSorter()
    sorter.add(uids)
    assert sorter.sorted().tolist() == sorted(uids.tolist())
