import io

import fsspec
import pytest
from datacomp.errors import DataError, MissingError, StorageError, UnsafeInputError
from datacomp.pools import Pool
from datacomp.pools.copying import copies_of
from datacomp.pools.reading import iterate
from datacomp.pools.sources import open_source
from datacomp.pools.tar import TarWriter


@pytest.fixture
def memory():
    """A store that fsspec keeps in memory."""
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


@pytest.fixture
def pool(tmp_path):
    return tmp_path / "pool.duckdb"


@pytest.fixture
def copied():
    """Return a way to copy a place and add it to a pool that has no samples of it."""

    def copied(place, path):
        with (
            copies_of(place, path) as copies,
            Pool.open_or_create(path) as pool,
            copies.taken_over(pool),
        ):
            return copies.path

    return copied


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and p.name != "place.json"}  # fmt: skip


def test_a_folder_of_a_store_is_copied_once_and_then_what_changed(memory, pool, copied, capsys):
    memory.pipe({"/b/m/x.parquet": b"1", "/b/m/part_0/y.parquet": b"22", "/b/m/.hidden": b"3",
                 "/b/other/z": b"4"})  # fmt: skip
    folder = copied("memory://b/m", pool)
    assert folder.parent == pool.with_name("pool.duckdb.sources")
    assert files_of(folder) == {"x.parquet": b"1", "part_0/y.parquet": b"22"}
    assert "2 of 2 files copied" in capsys.readouterr().err
    assert copied("memory://b/m", pool) == folder
    assert "0 of 2 files copied" in capsys.readouterr().err
    memory.pipe({"/b/m/x.parquet": b"9", "/b/m/new": b"n"})
    memory.rm("/b/m/part_0/y.parquet")
    copied("memory://b/m", pool)
    assert "2 of 2 files copied" in capsys.readouterr().err
    assert files_of(folder) == {"x.parquet": b"9", "new": b"n"}
    (folder / "x.parquet").write_bytes(b"cut off")  # not what was copied
    copied("memory://b/m", pool)
    assert files_of(folder)["x.parquet"] == b"9"


def test_one_file_of_a_store_or_of_a_web_server(memory, pool, copied, server):
    memory.pipe({"/b/x.csv": b"url,text\nhttp://a,b\n"})
    file = copied("memory://b/x.csv", pool)
    assert (file.name, file.read_bytes()) == ("x.csv", b"url,text\nhttp://a,b\n")
    server.files["/y.jsonl?token=1"] = (b'{"url": "http://a", "text": "b"}\n', '"1"')
    file = copied(f"{server.url}/y.jsonl?token=1", pool)
    assert file.name == "y.jsonl"
    server.files["/y.jsonl?token=1"] = (b'{"url": "http://a", "text": "c"}\n', '"2"')
    assert b"c" in copied(f"{server.url}/y.jsonl?token=1", pool).read_bytes()


def test_what_is_not_there_or_leads_elsewhere_is_one_line(
    memory, pool, copied, server, monkeypatch
):
    server.files["/whole"] = (b"x", '"1"')
    for place, error, message in (
        ("memory://b/none", MissingError, "memory://b/none: nothing lies there"),
        (f"{server.url}/none", MissingError, f"{server.url}/none: "),
        (f"{server.url}/whole", DataError, "the server does not answer range requests"),
        (f"{server.url}/a/..", UnsafeInputError, "'..' is no name of a file"),
        (f"{server.url}/", UnsafeInputError, "'' is no name of a file"),
        ("nothing://x", DataError, "nothing://x: not a known kind of store"),
    ):
        with pytest.raises(error) as caught:
            copied(place, pool)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(type(memory), "find", lambda self, root, **_: [f"{root}/../../etc/x"])
    with pytest.raises(UnsafeInputError) as caught:
        copied("memory://b", pool)
    assert str(caught.value) == "memory://b: '..' is no name of a file"


def test_the_command_adds_a_place_and_then_what_is_new(
    memory, pool, copied, commonpool, tmp_path, command
):
    folder = commonpool(tmp_path / "m", files=2)
    for path in folder.iterdir():
        memory.pipe({f"/b/m/{path.name}": path.read_bytes()})
    code, out, err = command("pool", "add", pool, "memory://b/m")
    assert (code, "10 added" in out) == (0, True)
    assert "kind commonpool, judging by 00ab.parquet" in err
    memory.rm("/b/m/01ab.parquet")
    code, out, _ = command("pool", "add", pool, "memory://b/m")
    assert "0 added, 5 unchanged, 0 changed, 5 vanished" in out
    with Pool.open(pool) as opened:
        assert opened.count() == 10
    local = copied("memory://b/m", pool)
    with Pool.create(tmp_path / "linked.duckdb") as linked:
        assert linked.add(open_source("commonpool", local, link=True)).added == 5


@pytest.fixture
def shards(memory, picture):
    """Return a way to put a tar of pictures to a store."""

    def shards(name, numbers):
        file = io.BytesIO()
        writer = TarWriter(file)
        for number in numbers:
            writer.add(f"{number:04d}.png", picture(number))
            writer.add(f"{number:04d}.txt", str(number).encode())
        writer.close()
        memory.pipe(f"/b/t/{name}", file.getvalue())

    return shards


def images_of(path):
    with Pool.open(path, read_only=True) as pool:
        return sorted(
            (text, image is not None)
            for batch in iterate(pool, columns=("text",), images=True)
            for text, image in zip(batch.columns["text"].to_pylist(), batch.images, strict=True)
        )


ADD = ("pool", "add")


def test_images_of_samples_that_vanished_stay(memory, pool, shards, command):
    shards("a.tar", [0])
    shards("b.tar", [1])
    memory.pipe("/b/t/notes.txt", b"of no use to a sample")
    assert command(*ADD, pool, "memory://b/t")[0] == 0
    memory.rm("/b/t/b.tar")
    memory.rm("/b/t/notes.txt")
    for _ in range(2):
        code, out, _ = command(*ADD, pool, "memory://b/t")
        assert (code, "0 added, 1 unchanged, 0 changed, 1 vanished" in out) == (0, True)
        assert images_of(pool) == [("0", True), ("1", True)]
    (folder,) = pool.with_name("pool.duckdb.sources").iterdir()
    assert sorted(files_of(folder)) == ["a.tar", "b.tar"]


def test_what_fails_leaves_the_files_as_they_were(memory, pool, shards, command, monkeypatch):
    shards("a.tar", [0])
    shards("b.tar", [1])
    assert command(*ADD, pool, "memory://b/t")[0] == 0
    shards("a.tar", [2, 3, 0])
    shards("c.tar", [4])
    memory.rm("/b/t/b.tar")

    def broken(*_, **__):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("datacomp.pools.pool.Pool.open_or_create", broken)  # held by another
        assert command(*ADD, pool, "memory://b/t")[0] == 1
        assert images_of(pool) == [("0", True), ("1", True)]
    with monkeypatch.context() as patch:
        patch.setattr("datacomp.pools.adding._Merge._count", broken)
        assert command(*ADD, pool, "memory://b/t")[0] == 1
        assert images_of(pool) == [("0", True), ("1", True)]
    code, out, err = command(*ADD, pool, "memory://b/t")
    assert (code, "3 added, 0 unchanged, 1 changed, 1 vanished" in out) == (0, True)
    assert "0 of 2 files copied" in err  # they were, by the first run
    assert images_of(pool) == [(str(n), True) for n in range(5)]
    names = {
        path.name.partition(".")[2] for path in pool.with_name("pool.duckdb.sources").iterdir()
    }
    assert names == {""}


def test_what_a_killed_run_left_is_put_back(memory, pool, shards, command):
    shards("a.tar", [0])
    shards("b.tar", [1])
    assert command(*ADD, pool, "memory://b/t")[0] == 0
    shards("a.tar", [2, 0])
    memory.rm("/b/t/b.tar")
    with copies_of("memory://b/t", pool) as copies, Pool.open(pool) as opened:
        unfinished = copies.taken_over(opened)
        unfinished.__enter__()  # and no more
        assert sorted(files_of(copies.path)) == ["a.tar"]
        with pytest.raises(StorageError) as caught, copies_of("memory://b/t", pool):
            pass
    assert str(caught.value) == (
        f"{copies.path}: another process is copying memory://b/t to it; wait for it or stop it"
    )
    with copies_of("memory://b/t", pool) as copies:
        assert images_of(pool) == [("0", True), ("1", True)]
    code, out, _ = command(*ADD, pool, "memory://b/t")
    assert (code, "1 added, 0 unchanged, 1 changed, 1 vanished" in out) == (0, True)
    assert images_of(pool) == [(str(n), True) for n in range(3)]
