"""Files of exchanges: who gets what, and how much of them is read for it."""

from pathlib import Path

import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.filters.together import file_in, received, send

KIND = np.dtype([("number", "<u4")])
IO = Path("/proc/self/io")


def sent(folder, ways, count):
    ways = np.asarray(ways)

    def records(places):
        found = np.empty(len(places), KIND)
        found["number"] = places
        return found

    send(file_in(folder, "sent", 0), ways, count, KIND, records, at_once=3)


def test_each_way_gets_its_own(tmp_path):
    ways = [3, 0, 3, 1, 3, 0, 7, 3]
    sent(tmp_path, ways, 8)
    for way in range(8):
        ((number, records),) = received(tmp_path, "sent", 1, way)
        assert number == 0
        assert records["number"].tolist() == [n for n, to in enumerate(ways) if to == way]


@pytest.mark.skipif(not IO.exists(), reason="the system does not count what is read")
def test_of_many_ways_little_is_read(tmp_path):
    count = 1 << 17
    sent(tmp_path, [5, count - 1, 5], count)
    assert file_in(tmp_path, "sent", 0).stat().st_size > 1 << 20

    def read():
        return int(IO.read_text().split()[1])  # rchar

    before = read()
    ((_, records),) = received(tmp_path, "sent", 1, count - 1)
    assert read() - before < 64 << 10
    assert records["number"].tolist() == [1]


@pytest.mark.parametrize("length", [0, 60, 150, 210])
def test_a_file_that_was_cut_is_told(tmp_path, length):
    sent(tmp_path, [1, 0, 1], 4)
    path = file_in(tmp_path, "sent", 0)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="not what a partition sent"):
        list(received(tmp_path, "sent", 1, 1))
