import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.pools.sources.guessing import guess_kind


@pytest.mark.parametrize(
    ("files", "kind", "telling"),
    [
        (["a.txt", "b/c.PNG", "metadata.csv"], "folder", "c.PNG"),
        (["0.tar", "0.parquet", "0_stats.json"], "webdataset", "0.tar"),
        (["a.csv"], "csv", "a.csv"),
        (["a.tsv", "b.jsonl"], "csv", "a.tsv"),
        (["b.jsonl"], "jsonl", "b.jsonl"),
        (["x.parquet"], "parquet", "x.parquet"),
        (["a.png", "a.json", "annotations/x.json"], "coco", "x.json"),
        (["a.png", "a.json", "s.kwcoco.json"], "coco", "s.kwcoco.json"),
        (["a.png", "a.json"], "folder", "a.png"),
    ],
)
def test_the_kind_is_told_by_the_files(tmp_path, files, kind, telling):
    for name in [*files, ".hidden.tar", ".cache/x.tar"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert guess_kind(tmp_path) == (kind, telling)


def test_parquet_files_are_told_apart_by_their_columns(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m")
    assert guess_kind(folder) == ("commonpool", "00ab.parquet")
    assert guess_kind(folder / "01ab.parquet") == ("commonpool", "01ab.parquet")
    pq.write_table(pa.table({"URL": ["a"], "TEXT": ["b"]}), tmp_path / "laion.parquet")
    assert guess_kind(tmp_path / "laion.parquet") == ("parquet", "laion.parquet")


def test_what_cannot_be_told_must_be_named(tmp_path):
    with pytest.raises(UsageError) as caught:
        guess_kind(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot tell which kind of source this is; name it with --kind "
        "(see 'datacomp pool add --help')"
    )
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UsageError):
        guess_kind(tmp_path / "a.png")
    with pytest.raises(MissingError, match="none: no such file or folder; a kind of source that"):
        guess_kind(tmp_path / "none")
