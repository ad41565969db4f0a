import pytest
from datacomp.errors import DataError
from datacomp.pools import Pool, reading
from datacomp.pools.reading import iterate, locate
from datacomp.pools.sources import open_source
from datacomp.pools.tar import tar_bytes
from datacomp.pools.uids import to_hex


@pytest.fixture
def pool(tmp_path, picture):
    """Three tars of four samples and a folder of two."""
    for shard in range(3):
        files = []
        for i in range(4):
            number = shard * 4 + i
            files += [(f"{i}.png", picture(number)), (f"{i}.txt", b"caption %d" % number)]
        (tmp_path / "tars").mkdir(exist_ok=True)
        (tmp_path / "tars" / f"{shard}.tar").write_bytes(tar_bytes(files))
    (tmp_path / "photos").mkdir()
    for number in (20, 21):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "photos" / f"{number}.txt").write_text(f"caption {number}")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("webdataset", tmp_path / "tars"))
        pool.add(open_source("folder", tmp_path / "photos"))
        yield pool


def numbers(batches):
    return [int(t.split()[1]) for batch in batches for t in batch.columns["text"].to_pylist()]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_samples_come_in_file_order_with_their_bytes(pool, picture, batch_size, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 6)
    batches = list(iterate(pool, columns=("text", "uid"), images=True, batch_size=batch_size))
    assert numbers(batches) == [*range(12), 20, 21]
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        assert batch.columns.column_names == ["text", "uid"]
        assert batch.columns["uid"].to_pylist() == to_hex(batch.uids)
        assert batch.images == [picture(n) for n in numbers([batch])]


def test_a_part_can_be_asked_for_and_images_left_out(pool):
    query = "SELECT uid FROM samples WHERE text LIKE '%1'"
    (batch,) = iterate(pool, query, ("text",))
    assert numbers([batch]) == [1, 11, 21]
    assert batch.images == []
    pool.sql(f"CREATE TEMP TABLE a_few AS {query}")
    assert numbers(iterate(pool, "a_few", ("text",))) == [1, 11, 21]
    assert len(next(iterate(pool, "a_few"))) == 3


def test_the_list_is_fixed_before_the_first_batch(pool):
    found = []
    for batch in iterate(pool, columns=("text",), batch_size=2):
        pool.sql("DELETE FROM samples WHERE text = 'caption 21'")
        found += numbers([batch])
    assert found == [*range(12), 20, 21]


def test_nothing_is_left_on_the_connection(pool):
    left = "SELECT table_name FROM duckdb_tables() WHERE temporary"
    for stop in (None, 1):
        reader = iterate(pool, batch_size=3)
        for number, _ in enumerate(reader):
            if number == stop:
                break
        reader.close()
        assert pool.sql(left).fetchall() == []


def test_what_cannot_be_read_is_none(pool, tmp_path, picture):
    (tmp_path / "tars" / "0.tar").unlink()
    whole = (tmp_path / "tars" / "1.tar").read_bytes()
    (tmp_path / "tars" / "1.tar").write_bytes(whole[:3000])
    (tmp_path / "photos" / "20.png").write_bytes(picture(99))
    (batch,) = iterate(pool, columns=("text",), images=True)
    missing = [n for n, data in zip(numbers([batch]), batch.images, strict=True) if data is None]
    assert missing == [0, 1, 2, 3, 5, 6, 7, 20]


def test_samples_without_files_have_no_bytes(pool_of):
    (batch,) = iterate(pool_of(text=["a", "b"]), images=True)
    assert batch.images == [None, None]


def test_a_pool_that_names_files_outside_gets_none_of_them(pool, tmp_path, picture):
    (tmp_path / "secret.png").write_bytes(picture(5))
    pool.sql(
        "UPDATE samples SET shard = '../secret.png', \"offset\" = 0, sha256 = NULL, length = 10"
    )
    (batch,) = iterate(pool, images=True)
    assert set(batch.images) == {None}


def test_where_a_shard_lies(tmp_path):
    (tmp_path / "one.tar").touch()
    assert locate(tmp_path / "one.tar", "one.tar") == tmp_path / "one.tar"
    assert locate(tmp_path, "sub/a.tar") == tmp_path / "sub" / "a.tar"
    for name in ("../a.tar", "/etc/passwd", "sub/../../a.tar"):
        with pytest.raises(DataError) as caught:
            locate(tmp_path, name)
        assert str(caught.value) == f"{name}: lies outside {tmp_path}"
