import fsspec
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.pools import Pool
from datacomp.pools.copying import copied
from datacomp.pools.sources import open_source


@pytest.fixture
def memory():
    """A store that fsspec keeps in memory."""
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


@pytest.fixture
def pool(tmp_path):
    return tmp_path / "pool.duckdb"


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and p.name != "place.json"}  # fmt: skip


def test_a_folder_of_a_store_is_copied_once_and_then_what_changed(memory, pool, capsys):
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


def test_one_file_of_a_store_or_of_a_web_server(memory, pool, server):
    memory.pipe({"/b/x.csv": b"url,text\nhttp://a,b\n"})
    file = copied("memory://b/x.csv", pool)
    assert (file.name, file.read_bytes()) == ("x.csv", b"url,text\nhttp://a,b\n")
    server.files["/y.jsonl?token=1"] = (b'{"url": "http://a", "text": "b"}\n', '"1"')
    file = copied(f"{server.url}/y.jsonl?token=1", pool)
    assert file.name == "y.jsonl"
    server.files["/y.jsonl?token=1"] = (b'{"url": "http://a", "text": "c"}\n', '"2"')
    assert b"c" in copied(f"{server.url}/y.jsonl?token=1", pool).read_bytes()


def test_what_is_not_there_or_leads_elsewhere_is_one_line(memory, pool, server, monkeypatch):
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


def test_the_command_adds_a_place_and_then_what_is_new(memory, pool, commonpool, tmp_path, command):
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
