import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.selection import select
from datacomp.errors import DataError, UsageError
from datacomp.filters import FilterSpec, parse
from datacomp.pools import Pool
from datacomp.pools.engine import Local
from datacomp.pools.uids import load_subset, to_hex


def test_a_selection_is_written_with_all_that_says_how(pool_of, tmp_path):
    pool = pool_of(width=[300, 100, 250], height=[300, 300, 300])
    titled = FilterSpec("image_size", {"min_side": 200}, title="sizes")
    reasons = tmp_path / "why.parquet"
    found = select(pool, [titled, parse("no_filter")], tmp_path / "s.npy", "then", reasons)
    assert to_hex(load_subset(tmp_path / "s.npy")) == [f"{i:032x}" for i in (0, 2)]
    assert found.share == 2 / 3
    assert found.sidecar == json.loads((tmp_path / "s.json").read_bytes())
    assert found.sidecar["pool"] == {"digest": pool.digest(), "samples": 3}
    assert found.sidecar["pipeline"] == {
        "filters": ["sizes", "no_filter"], "combine": "then", "scores": [],
    }  # fmt: skip
    assert found.sidecar["funnel"] == found.selection.funnel()
    assert pq.read_table(reasons).to_pylist() == [
        {"uid": f"{1:032x}", "filter": "sizes", "reason": "too_small"}
    ]


def test_nothing_kept_writes_no_subset(pool_of, tmp_path):
    pool = pool_of(width=[300, 100], height=[300, 300])
    with pytest.raises(DataError) as error:
        select(pool, [parse("image_size:min_side=900")], tmp_path / "s.npy")
    assert str(error.value) == "the filters keep no sample (2 too_small); loosen them"
    assert not (tmp_path / "s.npy").exists()


def test_reasons_replace_nothing(pool_of, tmp_path, monkeypatch):
    pool = pool_of(width=[300, 100], height=[300, 300])
    before = pool.path.read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for reasons, what in (
        ("sub/../s.npy", "subset"), (str(tmp_path / "s.json"), "subset's sidecar"),
        (str(pool.path), "pool"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            select(pool, [parse("no_filter")], tmp_path / "s.npy", reasons=reasons)
        assert str(caught.value) == (
            f"{reasons}: the reasons would replace the {what}; name another file"
        )
    assert [path.name for path in tmp_path.glob("s.*")] == []
    assert pool.path.read_bytes() == before


def test_reasons_do_not_join_the_metadata(tmp_path):
    folder = tmp_path / "metadata"
    folder.mkdir()
    pq.write_table(
        pa.table({"uid": [f"{1:032x}"], "url": ["http://x/1"], "text": ["x"]}), folder / "0.parquet"
    )
    with Pool.open(folder) as pool, pytest.raises(UsageError) as caught:
        select(pool, [parse("no_filter")], tmp_path / "s.npy", reasons=folder / "why.parquet")
    assert str(caught.value) == (
        f"{folder}/why.parquet: among the metadata the reasons would pass for some; "
        "name another folder"
    )
    assert [path.name for path in folder.iterdir()] == ["0.parquet"]


def test_a_wrong_name_is_told_before_the_work(pool_of, tmp_path):
    with pytest.raises(UsageError, match=r"s\.txt: the name of a subset file must end in \.npy"):
        select(pool_of(width=[1]), [parse("unknown")], tmp_path / "s.txt")


@pytest.mark.parametrize("engine", [None, Local(1)])
def test_metadata_may_lie_beside_where_one_stands(commonpool, tmp_path, monkeypatch, engine):
    """A path with ".." is taken as it is; features beside the files are found too."""
    commonpool(tmp_path / "metadata", files=2, rows=10)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    filters = [parse("ssl_prototypes:clusters=2,fraction=0.5")]
    found = []
    for place in ("../metadata", str(tmp_path / "metadata")):
        with Pool.open(Path(place)) as pool:
            found.append(select(pool, filters, Path("s.npy"), engine=engine).sidecar)
    assert found[0] == found[1]
    assert 0 < found[0]["count"] < 20
