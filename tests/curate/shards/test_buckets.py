"""Rows in numbered buckets, in memory and in files."""

import numpy as np
import pytest
from datacomp.curate.shards.buckets import Buckets, take
from datacomp.errors import StorageError
from hypothesis import given, settings
from hypothesis import strategies as st

ROW = np.dtype([("value", "<u8"), ("a", "<u4"), ("b", "<u4")])
COUNT = 5


def rows_of(values):
    rows = np.zeros(len(values), ROW)
    rows["value"], rows["b"] = values, values
    return rows


def added(buckets, numbers, first=0):
    rows = rows_of(np.arange(first, first + len(numbers)))
    buckets.add(np.array(numbers, np.uint16), rows)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, COUNT - 1))), st.integers(1, 12), st.data())
def test_rows_come_back_as_they_came_whatever_is_held(tmp_path_factory, parts, held, data):
    buckets = Buckets(COUNT, ROW, tmp_path_factory.getbasetemp(), held * ROW.itemsize)
    everything = [number for part in parts for number in part]
    start = 0
    for part in parts:
        added(buckets, part, start)
        start += len(part)
    assert buckets.rows.tolist() == [everything.count(number) for number in range(COUNT)]
    for number in range(COUNT):
        pieces = list(buckets.pieces(number, number + 1))
        found = [int(value) for piece in pieces for value in piece["value"]]
        assert found == [row for row, other in enumerate(everything) if other == number]
        assert all(len(piece) <= held and (piece["b"] == piece["value"]).all() for piece in pieces)
    first = data.draw(st.integers(0, COUNT))
    last = data.draw(st.integers(first, COUNT))
    found = [int(value) for piece in buckets.pieces(first, last) for value in piece["value"]]
    assert sorted(found) == [n for n, other in enumerate(everything) if first <= other < last]


def test_nothing_is_left_in_the_folder_nor_made(tmp_path):
    buckets = Buckets(2, ROW, tmp_path / "not" / "there", ROW.itemsize)
    added(buckets, [0, 1, 1])
    assert [piece["value"].tolist() for piece in buckets.pieces(1, 2)] == [[1], [2]]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"cannot write .*: the disk is full"):
        added(Buckets(1, ROW, tmp_path, ROW.itemsize), [0, 0])


def test_rows_that_cannot_be_read_back_are_told(tmp_path):
    buckets = Buckets(1, ROW, tmp_path, ROW.itemsize)
    added(buckets, [0, 0, 0])
    buckets._file.truncate(ROW.itemsize + 3)
    with pytest.raises(StorageError, match=r"of 16 bytes written there only 3 can be read; check"):
        list(buckets.pieces(0, 1))


def test_rows_are_taken_in_any_order():
    assert take(rows_of([5, 6, 7]), np.array([2, 0, 0]))["b"].tolist() == [7, 5, 5]
    assert len(take(rows_of([]), np.array([], int))) == 0


@pytest.mark.parametrize(("count", "dtype"), [(0, ROW), (1 << 17, ROW), (1, np.dtype("<u4,<u8"))])
def test_what_cannot_be_held_is_refused(tmp_path, count, dtype):
    with pytest.raises(ValueError, match="too many buckets"):
        Buckets(count, dtype, tmp_path)
