import json

import pyarrow.parquet as pq
import pytest
from datacomp.curate.selection import select
from datacomp.errors import DataError, UsageError
from datacomp.filters import FilterSpec, parse
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


def test_a_wrong_name_is_told_before_the_work(pool_of, tmp_path):
    with pytest.raises(UsageError, match=r"s\.txt: the name of a subset file must end in \.npy"):
        select(pool_of(width=[1]), [parse("unknown")], tmp_path / "s.txt")
