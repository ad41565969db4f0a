import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.pools.reading import iterate
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex, uid_of_bytes


@pytest.fixture
def dataset(tmp_path):
    """Return a maker of a dataset's file: columns, and the names of classes."""

    def dataset(name, classes=None, **columns):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(columns)
        if classes is not None:
            about = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
        pq.write_table(table, path, row_group_size=2)
        return tmp_path / "data"

    return dataset


def source(tmp_path, data, **options):
    return open_source("huggingface", tmp_path / "images", data=str(data), **options)


def test_images_are_unpacked_and_read(tmp_path, dataset, picture, empty, rows):
    pictures = [picture(0), picture(1, "JPEG"), picture(2, "WEBP")]
    data = dataset(
        "data/train-00000-of-00001.parquet",
        image=[{"bytes": p, "path": None} for p in pictures],
        text=["a", "", "ü"], score=[1, None, 3], stars=[0.5, 1.5, 2.5], boxes=[[1], [2], []],
    )  # fmt: skip
    report = empty.add(source(tmp_path, data))
    assert (report.added, report.set_aside) == (3, {})
    shard = "data/train-00000-of-00001.tar"
    assert sorted(rows(empty, "text, width, score, stars, shard")) == [
        ("", 24, None, 1.5, shard), ("a", 24, 1, 0.5, shard), ("ü", 24, 3, 2.5, shard),
    ]  # fmt: skip
    assert "boxes" not in empty.columns()
    expected = [uid_of_bytes(p, t.encode()) for p, t in zip(pictures, ["a", "", "ü"], strict=True)]
    found = {
        uid: image
        for batch in iterate(empty, images=True)
        for uid, image in zip(to_hex(batch.uids), batch.images, strict=True)
    }
    assert found == dict(zip(expected, pictures, strict=True))


def test_an_unchanged_file_is_unpacked_once(tmp_path, dataset, picture, empty):
    data = dataset("a.parquet", image=[{"bytes": picture(0)}], text=["a"])
    dataset("b.parquet", image=[{"bytes": picture(1)}], text=["b"])
    empty.add(source(tmp_path, data))
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").glob("*.tar")}
    bytes_before = (tmp_path / "images/b.tar").read_bytes()
    dataset("a.parquet", image=[{"bytes": picture(0)}, {"bytes": picture(7)}], text=["a", "c"])
    report = empty.add(source(tmp_path, data))
    assert (report.added, report.unchanged) == (1, 2)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").glob("*.tar")}
    assert [name for name in times if after[name] != times[name]] == ["a.tar"]
    assert (tmp_path / "images/b.tar").read_bytes() == bytes_before
    (data / "b.parquet").unlink()
    assert empty.add(source(tmp_path, data)).vanished == 1


def images_of(pool):
    return sorted(
        (text, image is not None)
        for batch in iterate(pool, columns=("text",), images=True)
        for text, image in zip(batch.columns["text"].to_pylist(), batch.images, strict=True)
    )


def test_a_file_that_cannot_be_read_now_costs_no_image_of_the_pool(
    tmp_path, dataset, picture, empty, aside
):
    data = dataset("a.parquet", image=[{"bytes": picture(0)}], text=["a"])
    dataset("b.parquet", image=[{"bytes": picture(1)}], text=["b"])
    empty.add(source(tmp_path, data))
    whole = (data / "b.parquet").read_bytes()
    (data / "b.parquet").write_bytes(whole[:-100])
    report = empty.add(source(tmp_path, data))
    assert (report.unchanged, report.vanished, report.set_aside) == (2, 0, {"file_broken": 1})
    assert images_of(empty) == [("a", True), ("b", True)]
    (data / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"b\.parquet"):
        empty.add(source(tmp_path, data))
    assert images_of(empty) == [("a", True), ("b", True)]


def test_a_changed_file_replaces_its_tar_once_the_pool_has_the_samples(
    tmp_path, dataset, picture, empty, monkeypatch
):
    data = dataset("a.parquet", image=[{"bytes": picture(0)}], text=["a"])
    empty.add(source(tmp_path, data))
    dataset("a.parquet", image=[{"bytes": picture(n)} for n in (7, 0)], text=["c", "a"])

    def broken(*_):
        raise DataError("cable pulled")

    with monkeypatch.context() as patch:
        patch.setattr("datacomp.pools.adding._Merge._count", broken)
        with pytest.raises(DataError):
            empty.add(source(tmp_path, data))
    assert images_of(empty) == [("a", True)]
    report = empty.add(source(tmp_path, data))
    assert (report.added, report.changed) == (1, 1)  # it lies elsewhere in the tar
    assert images_of(empty) == [("a", True), ("c", True)]
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == ["a.tar", "a.tar.from.json"]


def test_classes_are_captions_where_there_are_no_others(tmp_path, dataset, picture, empty, rows):
    data = dataset("a.parquet", ["cat", "dog"], img=[picture(0), picture(1), picture(2)],
                   label=[1, 0, 9])  # fmt: skip
    report = empty.add(source(tmp_path, data))
    assert (report.added, report.set_aside) == (2, {"no_caption": 1})
    assert sorted(rows(empty, "text")) == [("cat",), ("dog",)]


def test_what_cannot_be_used_is_set_aside(tmp_path, dataset, picture, empty, aside):
    data = dataset(
        "a.parquet", image=[{"bytes": p} for p in (None, b"", b"x", picture(1), picture(2))],
        caption=["a", "b", "c", None, "x" * (1 << 21)],
    )  # fmt: skip
    (data / "b.parquet").write_bytes(b"no parquet")
    os.symlink("/etc/passwd", data / "c.parquet")
    for turn in range(2):
        report = empty.add(source(tmp_path, data))
        assert (report.added, report.unchanged) == ((1, 0), (0, 1))[turn]
        assert aside(empty, "item, reason") == [
            ("b.parquet", "file_broken"), ("c.parquet", "file_broken"),
            ("a.tar/00000000", "no_image"), ("a.tar/00000001", "no_image"),
            ("a.tar/00000002", "image_broken"), ("a.tar/00000004", "caption_too_long"),
        ]  # fmt: skip


def test_a_text_that_is_not_utf8_costs_its_sample_and_no_other(
    tmp_path, dataset, picture, empty, aside, rows, spoil
):
    images = [{"bytes": picture(n)} for n in range(3)]
    data = dataset("a.parquet", image=images, text=["a", "b", "c"], note=["x", "y", "z"])
    spoil(data / "a.parquet", "text", 1)
    spoil(data / "a.parquet", "note", 2)
    report = empty.add(source(tmp_path, data))
    assert (report.added, report.set_aside) == (2, {"caption_not_utf8": 1})
    assert aside(empty, "item, reason") == [("a.tar/00000001", "caption_not_utf8")]
    assert sorted(rows(empty, "text, note")) == [("a", "x"), ("c", r"b\xff\xfed")]


def test_columns_are_named_if_need_be(tmp_path, dataset, picture):
    data = dataset("a.parquet", photo=[{"bytes": picture(0)}], words=["w"])
    file = data / "a.parquet"
    for options, kind, message in (
        ({}, DataError, f"{file}: no text column; name it with --option text_column=NAME; "
                        "there are: photo, words"),
        ({"text_column": "word"}, UsageError,
         f"{file}: no column 'word' (did you mean 'words'?); there are: photo, words"),
    ):  # fmt: skip
        with pytest.raises(kind) as caught:
            list(source(tmp_path, data, **options).records())
        assert str(caught.value) == message
    (record,) = source(tmp_path, data, text_column="words").records()
    assert record.text == "w"
    with pytest.raises(UsageError, match="option data=FOLDER is missing"):
        list(open_source("huggingface", tmp_path / "images").records())


def test_a_guessed_dataset_is_unpacked_beside_the_pool(tmp_path, dataset, picture, command):
    data = dataset("a.parquet", image=[{"bytes": picture(0), "path": "a.png"}], text=["a"])
    pool = tmp_path / "pool.duckdb"
    add = ("pool", "add", pool, data)
    code, out, err = command(*add)
    images = next((tmp_path / "pool.duckdb.sources").iterdir())
    counts = (
        f"huggingface {images}: {{}} added, {{}} unchanged, 0 changed, 0 vanished, 0 duplicates\n"
    )
    assert (code, out) == (0, counts.format(1, 0))
    assert err.startswith(
        f"kind huggingface, judging by a.parquet\nits images are unpacked into {images}\n"
    )
    assert sorted(path.name for path in images.iterdir()) == ["a.tar", "a.tar.from.json"]
    assert command(*add)[:2] == (0, counts.format(0, 1))
    explicit = ("pool", "add", tmp_path / "b.duckdb", tmp_path / "images")
    assert command(*explicit, "--kind", "huggingface", "--option", f"data={data}")[0] == 0
    assert (tmp_path / "images/a.tar").read_bytes() == (images / "a.tar").read_bytes()
    code, _, err = command("pool", "add", tmp_path / "c", data, "--option", "data=elsewhere")
    assert code == 1, err
