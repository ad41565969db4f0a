import errno
import os

import pytest
from datacomp.distribution.stretch import CHUNK, KEPT, Joined, Spill, Stretch
from datacomp.errors import StorageError


def test_what_is_put_away_comes_back(tmp_path):
    parts = [bytes([n % 256]) * size for n, size in enumerate([0, 1, KEPT, KEPT + 1, CHUNK + 5])]
    with Spill(tmp_path) as spill:
        kept = [spill.put(part) for part in parts]
        assert [type(one) for one in kept] == [bytes, bytes, bytes, Stretch, Stretch]
        assert [bytes(one) for one in kept] == parts
        assert list(map(len, kept)) == list(map(len, parts))
        joined = Joined([*kept, Joined(kept)])
        assert (len(joined), bytes(joined)) == (2 * sum(map(len, parts)), 2 * b"".join(parts))
        assert [len(chunk) for chunk in kept[4].chunks()] == [CHUNK, 5]
        for part in (
            slice(-20, None),
            slice(None, -20),
            slice(3, 9),
            slice(9, 3),
            slice(0, 1 << 40),
        ):
            assert bytes(kept[4][part]) == parts[4][part]
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Spill(tmp_path) as spill:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            spill.put(bytes(KEPT + 1))


def test_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        stretch = Stretch(file, 50, 100)
        with pytest.raises(StorageError, match="a: was cut short while it was read"):
            bytes(stretch)
