import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools import AddReport, Pool
from datacomp.pools.sources import open_source

COLUMNS = {
    "uid": "UHUGEINT", "url": "VARCHAR", "text": "VARCHAR", "width": "INTEGER",
    "height": "INTEGER", "sha256": "VARCHAR", "shard": "VARCHAR", "offset": "BIGINT",
    "length": "BIGINT", "metadata_file": "VARCHAR", "metadata_row": "BIGINT",
    "original_width": "BIGINT", "original_height": "BIGINT",
    "clip_b32_similarity_score": "FLOAT", "clip_l14_similarity_score": "FLOAT",
    "face_bboxes": "DOUBLE[][]", "source": "INTEGER",
}  # fmt: skip


def source(path, **options):
    return open_source("commonpool", path, **options)


@pytest.fixture(params=["copied", "linked"])
def filled(request, tmp_path):
    """Return a way to bring a source into a new pool: copied, then linked."""
    opened = []

    def filled(folder, name="pool.duckdb"):
        pool = Pool.create(tmp_path / name)
        opened.append(pool)
        return pool, pool.add(source(folder, link=request.param == "linked"))

    yield filled
    for pool in opened:
        pool.close()


def test_every_column_comes_along(tmp_path, commonpool, filled, rows):
    pool, report = filled(commonpool(tmp_path / "m"))
    linked = {"duplicates": None, "rows": 10} if report.rows is not None else {}
    assert report == AddReport(f"commonpool {tmp_path / 'm'}", added=10, **linked)
    assert pool.columns().items() >= COLUMNS.items()
    assert len(pool.columns()) == len(COLUMNS)
    assert rows(pool, "* EXCLUDE (face_bboxes)")[7] == tuple(
        {
            "uid": 7, "url": "http://x/7", "text": "a caption of number 7", "width": 307,
            "height": 207, "sha256": f"{7:064x}", "source": 1, "shard": None, "offset": None,
            "length": None, "metadata_file": "01ab.parquet", "metadata_row": 2,
            "original_width": 307, "original_height": 207,
            "clip_b32_similarity_score": np.float32(0.007),
            "clip_l14_similarity_score": np.float32(0.014),
        }[name]
        for name in pool.columns()
        if name != "face_bboxes"
    )  # fmt: skip
    assert pool.scalar("SELECT face_bboxes FROM samples LIMIT 1") == [[0.0, 0.0, 0.5, 0.5]]
    assert pool.info()["sources"][0]["samples"] == 10


def test_copied_and_linked_are_the_same_candidates(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=3)
    found = []
    for link in (False, True):
        with Pool.create(tmp_path / f"{link}.duckdb") as pool:
            pool.add(source(folder, link=link))
            found.append((pool.digest(), pool.uids().tolist()))
    with Pool.open(folder) as pool:
        found.append((pool.digest(), pool.uids().tolist()))
    assert found[0] == found[1] == found[2]


def test_parts_and_the_folder_of_a_download_are_found(tmp_path, commonpool, filled, rows):
    for part in range(2):
        commonpool(tmp_path / f"m/metadata/part_{part}", files=1, first=part * 100)
    commonpool(tmp_path / "m/shards", files=1)
    pool, report = filled(tmp_path / "m")
    assert report.added == 10
    assert set(rows(pool, "metadata_file")) == {
        ("metadata/part_0/00ab.parquet",), ("metadata/part_1/00ab.parquet",),
    }  # fmt: skip


def test_one_file_is_a_source_too(tmp_path, commonpool, filled, rows):
    pool, report = filled(commonpool(tmp_path / "m") / "01ab.parquet")
    assert report.added == 5
    assert rows(pool, "uid, metadata_file, metadata_row")[0] == (5, "01ab.parquet", 0)


def test_what_is_no_metadata_is_ignored_or_listed(
    tmp_path, commonpool, filled, aside, capsys, rows
):
    folder = commonpool(tmp_path / "m")
    (folder / "02ab.parquet").write_bytes((folder / "01ab.parquet").read_bytes()[:-100])
    (folder / "03ab.parquet").write_bytes(b"<html>")
    pq.write_table(pa.table({"a": [1]}), folder / "04ab.parquet")
    pq.write_table(pa.table({"uid": [1]}), folder / "05ab.parquet")
    os.symlink("/etc/passwd", folder / "06ab.parquet")
    for stray in ("README.md", "02ab.parquet.partial", "99.npz", ".hidden.parquet", "x.tmp"):
        (folder / stray).write_bytes(b"x")
    pool, report = filled(folder)
    found = report.to_dict()
    assert (found.pop("duplicates"), found.pop("rows", 10), found.pop("rows_before", None)) == (
        0 if report.rows is None else None, 10, None,
    )  # fmt: skip
    assert found | {"source": ""} == {
        "source": "", "added": 10, "unchanged": 0, "changed": 0, "vanished": 0,
        "set_aside": {"file_broken": 2, "file_foreign": 2, "outside_root": 1},
    }  # fmt: skip
    assert aside(pool, "item, reason") == [
        ("02ab.parquet", "file_broken"), ("03ab.parquet", "file_broken"),
        ("04ab.parquet", "file_foreign"), ("05ab.parquet", "file_foreign"),
        ("06ab.parquet", "outside_root"),
    ]  # fmt: skip
    assert capsys.readouterr().err == (
        f"warning: {folder}: ignored what is no metadata: 02ab.parquet.partial, 99.npz, "
        "README.md and 1 more\n"
    )
    assert len(rows(pool, "uid")) == 10


def test_null_captions_and_missing_columns_are_no_trouble(tmp_path, commonpool, filled, rows):
    folder = commonpool(tmp_path / "m", files=1, rows=2, text=[None, "x"])
    columns = {"uid": [f"{9:032x}"], "clip_b32_similarity_score": [0.5]}
    pq.write_table(pa.table(columns), folder / "zz.parquet")
    pool, report = filled(folder)
    assert report.added == 3
    assert rows(pool, "uid, url, text, width, sha256, clip_b32_similarity_score") == [
        (0, "http://x/0", "", 300, f"{0:064x}", 0.0),
        (1, "http://x/1", "x", 301, f"{1:064x}", pytest.approx(0.001)),
        (9, None, "", None, None, 0.5),
    ]


def test_nothing_to_read_is_one_line(tmp_path):
    with pytest.raises(MissingError) as caught:
        source(tmp_path / "none").files()
    assert str(caught.value) == f"{tmp_path / 'none'}: no such file or folder"
    with pytest.raises(DataError) as caught:
        source(tmp_path).files()
    expected = f"{tmp_path}: no metadata found (parquet files with uids)"
    assert str(caught.value) == expected
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        source(tmp_path).files()
    assert str(caught.value) == f"{expected}: a.parquet: no column uid of text"


# -- copied --------------------------------------------------------------------------------------


def test_rows_that_cannot_be_used_are_set_aside(tmp_path, empty, commonpool, aside, rows):
    bad = ["z" * 32, "0" * 31, "0x" + "0" * 30, None, "0" * 29 + "_01", f"{4:032X}"]
    folder = commonpool(tmp_path / "m", files=1, rows=6, uid=bad)
    commonpool(folder / "part_1", files=1, first=50, text=["x" * (1 << 20), "x" * (1 << 20) + "y"]
               + ["é" * 10] * 3)  # fmt: skip
    report = empty.add(source(folder))
    assert (report.added, report.set_aside) == (5, {"caption_too_long": 1, "uid_broken": 5})
    assert aside(empty, "item, reason") == [
        *((f"00ab.parquet: row {n}", "uid_broken") for n in range(1, 6)),
        ("part_1/00ab.parquet: row 2", "caption_too_long"),
    ]
    assert [uid for (uid,) in rows(empty, "uid")] == [4, 50, 52, 53, 54]
    assert empty.add(source(folder)).to_dict() == {
        "source": f"commonpool {folder}", "added": 0, "unchanged": 5, "changed": 0, "vanished": 0,
        "duplicates": 0, "set_aside": {"caption_too_long": 1, "uid_broken": 5},
    }  # fmt: skip


def test_a_uid_is_kept_once_and_the_others_are_listed(
    tmp_path, empty, commonpool, given, record, aside, rows, capsys
):
    empty.add(given(tmp_path, record(1, "mine")))
    folder = commonpool(tmp_path / "m", files=1)
    commonpool(folder / "part_0", files=1, first=3)
    (folder / "README").write_bytes(b"")
    report = empty.add(source(folder))
    assert (report.added, report.duplicates) == (7, 3)
    assert capsys.readouterr().err.count("README") == 1
    assert aside(empty, "item, detail") == [
        ("00ab.parquet: row 2", "first: source 1, s at byte 1"),
        ("part_0/00ab.parquet: row 1", "first: 00ab.parquet: row 4"),
        ("part_0/00ab.parquet: row 2", "first: 00ab.parquet: row 5"),
    ]
    assert rows(empty, "text")[1] == ("mine",)
    assert empty.count() == 8


def test_adding_again_brings_what_is_new(tmp_path, empty, commonpool, rows):
    folder = commonpool(tmp_path / "m", files=2)
    empty.add(source(folder))
    commonpool(folder / "part_0", files=1, first=50)
    (folder / "00ab.parquet").unlink()
    commonpool(folder / "part_1", files=1, rows=1, text=["other"])
    report = empty.add(source(folder))
    counts = (report.added, report.unchanged, report.changed, report.vanished)
    assert counts == (5, 5, 1, 4)
    assert rows(empty, "text, metadata_file")[0] == ("other", "part_1/00ab.parquet")


def test_a_file_that_breaks_off_in_the_middle_is_set_aside_whole(
    tmp_path, empty, commonpool, aside
):
    folder = commonpool(tmp_path / "m", files=2, rows=2000)
    path = folder / "00ab.parquet"
    data = bytearray(path.read_bytes())
    data[100:20_000] = b"\xff" * 19_900
    path.write_bytes(data)
    report = empty.add(source(folder))
    assert (report.added, report.set_aside) == (2000, {"file_broken": 1})
    assert aside(empty, "item, reason") == [("00ab.parquet", "file_broken")]


# -- linked --------------------------------------------------------------------------------------


def test_a_linked_row_without_a_uid_is_named_when_it_is_read(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=1, uid=[f"{n:032x}" for n in range(4)] + ["x"])
    with Pool.open(folder) as pool:
        assert pool.count() == 5
        with pytest.raises(DataError) as caught:
            pool.uids()
    assert "a uid that is not 32 hex digits: 00ab.parquet: row 5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_is_not_utf8_costs_its_sample_and_no_other(
    tmp_path, empty, commonpool, aside, spoil
):
    folder = commonpool(tmp_path / "m", files=2, rows=20_000)
    whole = commonpool(tmp_path / "whole", files=2, rows=20_000)
    spoil(folder / "00ab.parquet", "text", 17_000)
    spoil(folder / "00ab.parquet", "url", 4)
    spoil(folder / "01ab.parquet", "sha256", 19_999)
    report = empty.add(source(folder))
    expected = {"caption_not_utf8": 1, "value_not_utf8": 2}
    assert (report.added, report.set_aside) == (39_997, expected)
    assert sorted(aside(empty, "item, reason, detail")) == [
        ("00ab.parquet: row 17001", "caption_not_utf8", "column text"),
        ("00ab.parquet: row 5", "value_not_utf8", "column url"),
        ("01ab.parquet: row 20000", "value_not_utf8", "column sha256"),
    ]
    # All else is what it is without the three.
    everything = "SELECT * FROM samples ORDER BY uid"
    lost = "(17000, 4, 39999)"
    with Pool.create(tmp_path / "whole.duckdb") as other:
        other.add(source(whole))
        kept = f"SELECT * FROM samples WHERE uid NOT IN {lost} ORDER BY uid"
        columns = ", ".join(f'"{name}"' for name in other.columns())
        assert empty.sql(everything.replace("*", columns)).fetchall() == (
            other.sql(kept.replace("*", columns)).fetchall()
        )
    assert empty.add(source(folder)).unchanged == 39_997


def test_a_linked_caption_that_is_not_utf8_is_told_in_one_line(tmp_path, commonpool, spoil):
    folder = commonpool(tmp_path / "m", files=1)
    spoil(folder / "00ab.parquet", "text", 2)
    with Pool.open(folder) as pool, pytest.raises(DataError) as caught:
        pool.sql("SELECT text FROM samples").fetchall()
    assert "is not valid UTF8" in str(caught.value)
    assert "add the folder without linking it" in str(caught.value)
    assert "\n" not in str(caught.value)
