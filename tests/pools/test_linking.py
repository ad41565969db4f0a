import json
import tempfile

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.pools import AddReport, Pool
from datacomp.pools.asking import query
from datacomp.pools.linking import is_linked
from datacomp.pools.sources import open_source
from datacomp.pools.uids import from_hex


def link(folder):
    return open_source("commonpool", folder, link=True)


def test_linking_again_takes_over_what_came_and_went(tmp_path, empty, commonpool):
    folder = commonpool(tmp_path / "m")
    name = f"commonpool {folder}"
    unknown = (None,) * 5
    assert empty.add(link(folder)) == AddReport(name, added=10, duplicates=None, rows=10)
    commonpool(folder / "part_0", files=1, first=50)
    assert empty.count() == 10
    assert empty.add(link(folder)) == AddReport(name, *unknown, rows=15, rows_before=10)
    assert empty.count() == 15
    for file in folder.glob("*.parquet"):
        file.unlink()
    assert empty.add(link(folder)) == AddReport(name, *unknown, rows=5, rows_before=15)
    assert empty.uids().tolist() == from_hex([f"{n:032x}" for n in range(50, 55)]).tolist()


def test_rows_that_were_exchanged_are_not_called_unchanged(tmp_path, commonpool, command):
    folder = commonpool(tmp_path / "m", files=1, rows=4)
    add = ("pool", "add", tmp_path / "pool.duckdb", folder, "--kind", "commonpool", "--link")
    assert command(*add)[:2] == (0, f"commonpool {folder}: linked, 4 rows\n")
    commonpool(tmp_path / "m", files=1, rows=4, first=100)
    assert command(*add)[:2] == (
        0, f"commonpool {folder}: linked, 4 rows (4 before), not compared\n",
    )  # fmt: skip
    code, out, _ = command(*add, "--json")
    assert (code, json.loads(out)) == (0, {
        "source": f"commonpool {folder}", "added": None, "unchanged": None, "changed": None,
        "vanished": None, "duplicates": None, "set_aside": {}, "rows": 4, "rows_before": 4,
    })  # fmt: skip


def test_of_files_that_changed_scores_and_failed_fetches_are_forgotten(tmp_path, empty, commonpool):
    folder = commonpool(tmp_path / "m", files=3, rows=2)
    uids = from_hex([f"{n:032x}" for n in range(6)])
    empty.add(link(folder))
    scores = empty.score_table("s", "d", {"type": "FLOAT"})
    empty.write_scores(scores, uids, [0.5] * 6)
    empty.sql("CREATE TABLE feature_rows_1 (uid UHUGEINT, part INTEGER, row INTEGER, reason TEXT)")
    empty.sql("INSERT INTO feature_rows_1 SELECT uid, 0, uid, NULL FROM samples")
    empty.sql("INSERT INTO features (name, rows_table) VALUES ('b_img', 'feature_rows_1')")
    empty.sql("INSERT INTO fetches SELECT uid, 'failed', 'dns', 1, NULL FROM samples WHERE uid > 0")
    empty.sql("INSERT INTO fetches VALUES (0, 'ok', NULL, 1, NULL)")

    def left():
        (failed,) = empty.sql(
            "SELECT list(uid ORDER BY uid)::INTEGER[] FROM fetches WHERE state = 'failed'"
        ).fetchone()
        return failed, *(
            [uid for (uid,) in empty.sql(f"SELECT uid FROM {table} ORDER BY uid").fetchall()]
            for table in (scores, "feature_rows_1")
        )

    def written(number, **columns):
        commonpool(tmp_path / "new", files=1, rows=2, first=2 * number, features=(), **columns)
        (tmp_path / "new" / "00ab.parquet").replace(folder / f"{number:02d}ab.parquet")

    every = list(range(6))
    empty.add(link(folder))
    assert left() == (every[1:], every, every)
    written(0, text=["another", "caption"])
    written(2, url=["http://y/4", "http://y/5"])
    empty.add(link(folder))
    assert left() == ([2, 3], [2, 3], [2, 3])
    assert empty.sql("SELECT uid::INTEGER, state FROM fetches ORDER BY uid LIMIT 2").fetchall() == [
        (0, "ok"), (1, "pending"),
    ]  # fmt: skip
    # One that was away, and came with other captions.
    (folder / "01ab.parquet").rename(tmp_path / "away")
    empty.add(link(folder))
    assert left() == ([2, 3], [2, 3], [2, 3])
    (tmp_path / "away").rename(folder / "01ab.parquet")
    empty.add(link(folder))
    assert left() == (None, [], [])
    # A pool of before these things were written down.
    empty.write_scores(scores, uids, [0.5] * 6)
    empty.sql("DELETE FROM pool WHERE key LIKE 'linked_files_%'")
    empty.add(link(folder))
    assert left() == (None, [], [])


def test_linked_files_that_moved_with_their_pool_are_the_same(tmp_path, commonpool):
    folder = commonpool(tmp_path / "home" / "m", files=1, rows=1)
    with Pool.create(tmp_path / "home" / "pool.duckdb") as pool:
        pool.add(link(folder))
        table = pool.score_table("s", "d", {"type": "FLOAT"})
        pool.write_scores(table, from_hex(["0" * 32]), [0.5])
    (tmp_path / "home").rename(tmp_path / "away")
    with Pool.open(tmp_path / "away" / "pool.duckdb") as pool:
        pool.add(link(tmp_path / "away" / "m"))
        assert pool.count() == pool.scalar(f"SELECT count(*) FROM {table}") == 1


def test_a_pool_links_to_several_folders(tmp_path, empty, commonpool, rows):
    empty.add(link(commonpool(tmp_path / "a", files=1, rows=2)))
    empty.add(link(commonpool(tmp_path / "b", files=1, rows=2, first=9, sha256=[])))
    assert rows(empty, "uid, source, sha256") == [
        (0, 1, f"{0:064x}"), (1, 1, f"{1:064x}"), (9, 2, None), (10, 2, None),
    ]  # fmt: skip


def test_a_pool_holds_samples_or_links_to_them(tmp_path, empty, commonpool, given, record):
    folder = commonpool(tmp_path / "m")
    empty.add(link(folder))
    for source in (given(tmp_path, record(1)), open_source("commonpool", folder)):
        with pytest.raises(UsageError) as caught:
            empty.add(source)
        assert str(caught.value) == (
            f"{empty.path}: links to its samples, and a pool holds samples or links to them; "
            "add to a new pool, or link what can be linked"
        )
    with Pool.create(tmp_path / "other") as other:
        other.add(given(tmp_path, record(1)))
        with pytest.raises(UsageError) as caught:
            other.add(link(folder))
        assert str(caught.value) == (
            f"{other.path}: holds samples already, and a pool holds samples or links to them; "
            "link into a new pool, or add without link"
        )
        assert other.count() == 1


def test_links_and_scores_are_there_when_the_pool_is_opened_again(tmp_path, empty, commonpool):
    empty.add(link(commonpool(tmp_path / "m")))
    table = empty.score_table("s", "d", {"type": "FLOAT"})
    empty.write_scores(table, from_hex([f"{3:032x}"]), [0.5])
    empty.close()
    with Pool.open(empty.path, read_only=True) as again:
        assert again.count() == 10
        assert again.scalar(f"SELECT text FROM samples JOIN {table} USING (uid)")[-1] == "3"


def test_a_confined_linked_pool_reaches_its_files_and_no_other(tmp_path, empty, commonpool):
    folder = commonpool(tmp_path / "m")
    empty.add(link(folder))
    empty.close()
    for path in (empty.path, folder):
        with Pool.open(path, read_only=True, confined=True) as opened:
            assert opened.confined
            assert (opened.count(), len(opened.uids())) == (10, 10)
            for sql in (
                f"FROM read_blob('{folder / '00ab.npz'}')", "FROM read_text('/etc/passwd')",
                "FROM glob('/*')", f"COPY samples TO '{folder / '00ab.csv'}'",
            ):  # fmt: skip
                with pytest.raises(DataError, match="file system operations are disabled"):
                    opened.sql(sql)
            with pytest.raises(DataError, match="locked"):
                opened.sql("SET allowed_paths = ['/etc/passwd']")
        with query(path, "SELECT count(*) FROM samples") as cursor:
            assert cursor.fetchall() == [(10,)]


def test_a_folder_of_metadata_is_a_pool_in_memory(tmp_path, commonpool, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = commonpool(tmp_path / "m")
    with Pool.open(folder, read_only=True, memory_limit="200MB", threads=1) as pool:
        assert (pool.path, pool.count(), pool.source_paths()) == (folder, 10, {1: folder})
        assert json.dumps(pool.info(), default=str)
        table = pool.score_table("s", "d", {"type": "FLOAT"})
        pool.write_scores(table, from_hex([f"{3:032x}"]), [0.5])
        assert pool.scalar("SELECT current_setting('temp_directory')").startswith(
            tempfile.gettempdir() + "/datacomp-"
        )
        with pytest.raises(UsageError) as caught:
            pool.add(link(folder))
    assert str(caught.value) == (
        f"{folder}: a folder opened as a pool cannot be added to; make a pool of a file"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_without_metadata_is_no_pool(tmp_path):
    with pytest.raises(DataError) as caught:
        Pool.open(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no metadata found (parquet files with uids)"


def test_metadata_that_are_gone_are_named(tmp_path, empty, commonpool):
    folder = commonpool(tmp_path / "m")
    empty.add(link(folder))
    (folder / "01ab.parquet").unlink()
    with pytest.raises(DataError, match=r"01ab\.parquet"):
        empty.uids()


@pytest.mark.parametrize("as_folder", [True, False])
def test_nan_in_linked_files_is_nan_in_every_question(tmp_path, empty, commonpool, as_folder):
    scores = np.array([0.1, np.nan, 0.3, -np.inf, 0.2], np.float32)
    folder = commonpool(tmp_path / "m", clip_l14_similarity_score=scores)
    empty.add(link(folder))
    empty.close()

    def ask(statement):
        with query(folder if as_folder else empty.path, statement) as cursor:
            return cursor.fetchall()

    score = "clip_l14_similarity_score"
    assert ask(f"SELECT isnan({score}), isinf({score}) FROM samples ORDER BY uid LIMIT 5") == [
        (False, False), (True, False), (False, False), (False, True), (False, False),
    ]  # fmt: skip
    assert ask(f"SELECT count(*) FROM samples WHERE isnan({score})") == [(2,)]
    assert ask(f"SELECT count(*) FROM samples WHERE {score} = 'nan'") == [(2,)]
    assert ask(f"SELECT count(*) FROM samples WHERE {score} < 0") == [(2,)]
    assert ask(f"SELECT isnan(max({score})), min({score}) = '-inf' FROM samples") == [(True, True)]


def test_info_lists_the_features_beside_metadata(tmp_path, empty, commonpool):
    folder = commonpool(tmp_path / "m")
    (folder / "01ab.npz").unlink()
    commonpool(folder / "part_0", files=1, first=50)
    (folder / "zz.npz").write_bytes(b"no features, no metadata")
    empty.add(link(folder))
    expected = [
        {"name": name, "model": None, "weights": None, "precision": None, "dimension": dimension,
         "dtype": "float16", "file": f"{folder}: 2 .npz"}
        for name, dimension in (("b32_img", 8), ("l14_img", 12))
    ]  # fmt: skip
    assert empty.info()["features"] == expected
    with Pool.open(folder, read_only=True) as pool:
        assert pool.info()["features"] == expected
    for file in folder.rglob("*.npz"):
        file.write_bytes(b"broken")
    assert empty.info()["features"] == []


def test_a_table_of_another_schema_is_not_that_of_the_samples(tmp_path, empty, commonpool):
    empty.add(link(commonpool(tmp_path / "m")))
    empty.sql("CREATE SCHEMA mine")
    empty.sql("CREATE TABLE mine.samples (a INTEGER)")
    assert is_linked(empty.connection)
    empty.add(link(commonpool(tmp_path / "n", first=100)))
    assert empty.count() == 20
