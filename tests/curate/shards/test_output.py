"""Large files: whole whatever the pieces, hashed, and past the cache where that can be."""

import errno
import fcntl
import hashlib
import os

import numpy as np
import pytest
from datacomp.curate.shards import output
from datacomp.curate.shards.output import OutputFile
from hypothesis import given
from hypothesis import strategies as st

PAGE = 4096


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(output, "BUFFER", 2 * PAGE)


def written(path, pieces):
    with OutputFile(path) as file:
        for piece in pieces:
            file.write(piece)
        return file.size, file.finish()


def expected(data):
    return len(data), hashlib.sha256(data).hexdigest()


@given(st.lists(st.integers(0, 5 * PAGE).map(os.urandom), max_size=8))
def test_what_is_written_is_there(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("output") / "x"
    data = b"".join(pieces)
    views = [memoryview(b"-" + piece + b"-")[1:-1] for piece in pieces]
    output.BUFFER = 2 * PAGE
    assert written(path, views) == expected(data)
    assert path.read_bytes() == data


@given(st.lists(st.integers(0, 2 * PAGE) | st.lists(st.integers(0, 8), max_size=40), max_size=8))
def test_rows_are_written_in_their_order(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("output") / "x"
    rows = np.frombuffer(os.urandom(9 * 512), np.uint8).reshape(9, 512)
    output.BUFFER = 2 * PAGE
    data = b""
    with OutputFile(path) as file:
        for piece in pieces:
            if isinstance(piece, int):  # rows need not begin where a row would
                file.write(bytes(piece))
                data += bytes(piece)
            else:
                file.write_rows(rows, np.array(piece, np.intp))
                data += b"".join(rows[row].tobytes() for row in piece)
        assert (file.size, file.finish()) == expected(data)
    assert path.read_bytes() == data


def test_a_file_that_was_there_is_replaced(tmp_path):
    (tmp_path / "x").write_bytes(b"something longer")
    assert written(tmp_path / "x", [b"new"]) == expected(b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_full_buffers_go_past_the_cache_and_the_rest_through_it(tmp_path, monkeypatch):
    seen = []
    write = os.write

    def spy(file, data):
        seen.append((len(data), bool(fcntl.fcntl(file, fcntl.F_GETFL) & output.O_DIRECT)))
        return write(file, data)

    monkeypatch.setattr(output.os, "write", spy)
    data = os.urandom(5 * PAGE + 7)
    assert written(tmp_path / "x", [data]) == expected(data)
    directly = seen[0][1]  # not every file system can
    assert seen == [(2 * PAGE, directly), (2 * PAGE, directly), (PAGE + 7, False)]


@pytest.mark.parametrize("trouble", ["refused", "short"])
def test_a_file_system_that_writes_otherwise_gets_the_same_bytes(tmp_path, monkeypatch, trouble):
    write, tries = os.write, []

    def awkward(file, data):
        direct = fcntl.fcntl(file, fcntl.F_GETFL) & output.O_DIRECT
        tries.append(direct)
        if direct and trouble == "refused":
            raise OSError(errno.EINVAL, "not here")
        if len(tries) == 1:
            fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) & ~output.O_DIRECT)
            return write(file, data[:1000])
        return write(file, data)

    monkeypatch.setattr(output.os, "write", awkward)
    data = os.urandom(7 * PAGE)
    assert written(tmp_path / "x", [data]) == expected(data)
    assert (tmp_path / "x").read_bytes() == data
    assert not any(tries[1:])


def test_a_full_disk_is_told_wherever_it_strikes(tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(output.os, "write", full)
    for size in (10, 2 * PAGE, 9 * PAGE):
        with pytest.raises(OSError, match="full"):
            written(tmp_path / "x", [bytes(size)])
