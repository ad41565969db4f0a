"""Uids that stand in several rows, found in memory and in files."""

import numpy as np
import pytest
from datacomp.curate.shards import repeats
from datacomp.curate.shards.repeats import RepeatFinder
from datacomp.errors import StorageError
from datacomp.pools.uids import UID_DTYPE
from hypothesis import given, settings
from hypothesis import strategies as st

HALVES = st.sampled_from([0, 1, 5, 1 << 56, (1 << 64) - 1])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.tuples(HALVES, HALVES))), st.integers(1, 30))
def test_all_but_the_first_are_found_whatever_is_held(tmp_path_factory, parts, held):
    folder = tmp_path_factory.getbasetemp()
    finder = RepeatFinder(folder, held)
    for part in parts:
        finder.add(np.array(part, UID_DTYPE))
    found = finder.repeated().tolist()
    seen, expected = set(), []
    for row, uid in enumerate(uid for part in parts for uid in part):
        if uid in seen:
            expected.append(row)
        seen.add(uid)
    assert found == expected


def test_rows_that_agree_in_their_first_bits_are_looked_at_a_few_at_a_time(tmp_path, monkeypatch):
    looked_at = []

    def later(rows):
        looked_at.append(len(rows))
        return real(rows)

    real = repeats._later
    monkeypatch.setattr(repeats, "_later", later)
    high = np.random.default_rng(0).integers(0, 1 << 48, 1000).astype(np.uint64)
    uids = np.zeros(1001, UID_DTYPE)
    uids["f0"][:1000], uids["f0"][1000] = high, high[500]
    finder = RepeatFinder(tmp_path, 20)
    for part in np.split(uids, 7 * np.arange(1, 143)):
        finder.add(part)
    assert finder.repeated().tolist() == [1000]
    assert sum(looked_at) == 1001
    assert max(looked_at) <= 20


def test_nothing_is_left_in_the_folder(tmp_path):
    finder = RepeatFinder(tmp_path, 2)
    for _ in range(3):
        finder.add(np.array([(1, 1), (1 << 63, 2)], UID_DTYPE))
    assert finder.repeated().tolist() == [2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"cannot write .*: "):
        RepeatFinder(tmp_path, 1).add(np.array([(1, 1), (2, 2)], UID_DTYPE))
