"""Ranges of local files, of a real web server, and of an fsspec store."""

import os

import pytest
from datacomp.errors import DataError, MissingError, StorageError, UnsafeInputError
from datacomp.pools import ranges
from datacomp.pools.ranges import OpenFiles, Stamp, fetch, open_ranges, read_batches, read_places

DATA = bytes(range(256)) * 40


@pytest.fixture
def store():
    """A store in memory, through fsspec; the URL of one file."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe_file("/bucket/a.tar", DATA)
    yield "memory://bucket/a.tar"
    system.rm("/bucket", recursive=True)


@pytest.fixture(params=["local", "http", "moved", "store"])
def place(request, tmp_path):
    """The same file in each kind of place."""
    if request.param == "local":
        (tmp_path / "a.tar").write_bytes(DATA)
        return str(tmp_path / "a.tar")
    if request.param == "store":
        return request.getfixturevalue("store")
    server = request.getfixturevalue("server")
    server.files["/a.tar"] = (DATA, '"one"')
    return f"{server.url}/{'moved/' if request.param == 'moved' else ''}a.tar"


def test_any_place_gives_the_bytes_asked_for(place):
    file = open_ranges(place)
    assert file.size == len(DATA)
    assert file.read(0, 10) == DATA[:10]
    assert file.read(300, 4000) == DATA[300:4300]
    assert file.read_at(len(DATA) - 3, 100) == DATA[-3:]
    assert file.read_at(len(DATA), 100) == b""
    for offset, length in ((0, len(DATA) + 1), (-1, 4), (len(DATA), 1)):
        with pytest.raises(DataError, match="changed while it was read; run the same command"):
            file.read(offset, length)
    file.close()


def test_many_ranges_come_in_their_order(place):
    stamp = open_ranges(place)
    file = Stamp(place, stamp.size, stamp.version)
    stamp.close()
    places = [(0, at, 100) for at in (0, 100, 5000, 300, 9000, 8000)] * 4
    with OpenFiles() as opened:
        found = [bytes(view) for view in read_places([file], places, opened)]
    assert found == [DATA[at : at + 100] for _, at, _ in places]


@pytest.mark.parametrize("room", [100, 256, 1000, 1 << 16])
def test_many_ranges_come_together(place, room):
    stamp = open_ranges(place)
    file = Stamp(place, stamp.size, stamp.version)
    stamp.close()
    places = [(0, at, size) for at, size in ((0, 100), (100, 150), (5000, 9), (300, 700), (0, 0))]
    found = []
    with OpenFiles() as opened:
        for count, data in read_batches([file], places * 4, opened, bytearray(room)):
            assert count
            at = 0
            for _, _, size in (places * 4)[len(found) : len(found) + count]:
                found.append(bytes(data[at : at + size]))
                at += size
            assert at <= room or count == 1
    assert found == [DATA[at : at + size] for _, at, size in places * 4]


def test_ranges_that_end_behind_the_file(place):
    file = open_ranges(place)
    for offset, length in ((0, len(DATA) + 1), (-1, 4), (len(DATA), 1)):
        with pytest.raises(DataError, match="changed while it was read; run the same command"):
            file.read_into(offset, memoryview(bytearray(length)))
    file.close()


def test_remote_ranges_are_joined_wherever_the_first_file_lies(tmp_path, server):
    (tmp_path / "b.tar").write_bytes(DATA)
    server.files["/a.tar"] = (DATA, '"one"')
    files = []
    for place in (str(tmp_path / "b.tar"), f"{server.url}/a.tar"):
        file = open_ranges(place)
        files.append(Stamp(place, file.size, file.version))
        file.close()
    before = len(server.asked)
    places = [(0, 0, 100), (1, 0, 100), (1, 200, 100), (1, 5000, 100), (0, 512, 9), (1, 6000, 1)]
    with OpenFiles() as opened:
        found = [bytes(view) for view in read_places(files, places, opened)]
    assert found == [DATA[at : at + size] for _, at, size in places]
    assert len(server.asked) - before == 3  # what it is, three ranges at once, and one more


@pytest.mark.parametrize("stale", [Stamp("", 7, ""), Stamp("", len(DATA), "another")])
def test_a_file_that_is_not_as_stamped(place, stale):
    with OpenFiles() as opened, pytest.raises(DataError) as caught:
        opened.read(place, 0, 1, Stamp(place, stale.size, stale.version))
    assert str(caught.value) == (
        f"{place}: has changed since it was indexed; run 'datacomp shards index' and then this "
        "again"
    )


def test_files_that_are_not_there(server, tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        open_ranges(str(tmp_path / "none"))
    with pytest.raises(MissingError, match=r"no such file \(404\)"):
        open_ranges(f"{server.url}/none")
    with pytest.raises(MissingError, match="no such file"):
        open_ranges("memory://nowhere/none")
    assert fetch(f"{server.url}/none", 10) is None
    assert fetch("memory://nowhere/none", 10) is None


def test_small_files_are_fetched_whole_or_refused(server, store):
    server.files["/list"] = (b"a\nb", "")
    assert fetch(f"{server.url}/list", 3) == b"a\nb"
    assert fetch(store, len(DATA)) == DATA
    for place in (f"{server.url}/list", store):
        with pytest.raises(UnsafeInputError, match="larger than 2 bytes; refused"):
            fetch(place, 2)


def test_neighbours_are_asked_for_together(server):
    server.files["/a.tar"] = (DATA, "x")
    file = Stamp(f"{server.url}/a.tar", len(DATA), "x")
    with OpenFiles() as opened:
        list(read_places([file], [(0, 0, 512), (0, 512, 512), (0, 3000, 100)], opened))
    assert server.asked == [("/a.tar", "bytes=0-0"), ("/a.tar", "bytes=0-3099")]


def test_a_file_that_changes_on_the_server(server):
    server.files["/a.tar"] = (DATA, "one")
    file = open_ranges(f"{server.url}/a.tar")
    server.files["/a.tar"] = (DATA, "two")
    with pytest.raises(DataError, match="changed while it was read"):
        file.read(0, 10)


def test_a_server_that_answers_no_ranges(server):
    server.files["/whole"] = (DATA, "x")
    with pytest.raises(DataError) as caught:
        open_ranges(f"{server.url}/whole")
    assert str(caught.value) == (
        f"{server.url}/whole: the server does not answer range requests; download it"
    )


def test_a_busy_server_is_asked_again(server, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    server.files["/a.tar"] = (DATA, "x")
    server.failures = 2
    assert open_ranges(f"{server.url}/a.tar").size == len(DATA)
    assert pauses == [0.5, 1.0]
    server.failures = 9
    with pytest.raises(StorageError, match=r"cannot be read: the server answered 503 .*; try"):
        open_ranges(f"{server.url}/a.tar")


def test_circles_and_strange_addresses_are_refused(server):
    with pytest.raises(DataError, match="more than 5 redirects"):
        open_ranges(f"{server.url}/round")
    with pytest.raises(UnsafeInputError, match="not an HTTP address; refused"):
        open_ranges("http:///x")
    with pytest.raises(UnsafeInputError, match="chained URLs are refused"):
        open_ranges("s3://x/y::zip://z")
    with pytest.raises(DataError, match="not a known kind of store"):
        open_ranges("nosuch://x/y")


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(DATA)

    def shrink():
        with OpenFiles() as files:
            files.read(str(path), 0, 512)
            os.truncate(path, 1024)
            files.read(str(path), 4096, 512)

    with pytest.raises(DataError, match="changed while it was read"):
        shrink()


def test_a_file_that_changes_behind_the_reader_is_told_at_the_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(DATA)

    def touch():
        with OpenFiles() as files:
            files.read(str(path), 0, 512)
            os.utime(path, ns=(0, 0))

    with pytest.raises(DataError, match="changed while it was read"):
        touch()


def test_few_files_are_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "OPEN_FILES", 2)
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.write_bytes(DATA)
    with OpenFiles() as files:
        for path in paths * 2:
            assert files.read(str(path), 0, 512) == DATA[:512]
            assert len(files._local._files) <= 2
