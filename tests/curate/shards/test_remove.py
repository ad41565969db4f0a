import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, check_shards, index_shards
from datacomp.curate.shards.remove import remove_samples, uids_in
from datacomp.distribution import manifest
from datacomp.errors import MissingError
from datacomp.pools.uids import load_subset, to_hex

PIECE = 1 << 16


@pytest.fixture
def built(shards, select, tmp_path):
    """Three built shards of seven samples, padded, with subset, counts, manifest and index."""
    build_shards(shards, select(*range(21)), tmp_path / "built", shard_size=7, pad=PIECE)
    index_shards(tmp_path / "built")
    return tmp_path / "built"


def uids(folder):
    return {path.name: [uid for _, uid in uids_in(path)] for path in sorted(folder.glob("*.tar"))}


def test_only_the_shards_concerned_are_written_anew(built, make):
    before, samples = make.files_of(built), uids(built)
    gone = [samples["00000000.tar"][2], samples["00000002.tar"][6]]
    report = remove_samples(built, gone, ["00000000.tar", "00000002.tar"], PIECE)
    assert (report.shards, report.samples) == (["00000000.tar", "00000002.tar"], 2)
    after = make.files_of(built)
    assert after["00000001.tar"] == before["00000001.tar"]
    left = {name: [uid for uid in found if uid not in gone] for name, found in samples.items()}
    assert uids(built) == left
    assert len(after["00000000.tar"]) % PIECE == 0
    for uid in gone:
        assert not any(uid.encode() in data for data in after.values())
    assert check_shards(built).sound


def test_what_is_left_stays_byte_for_byte(built, make):
    path = built / "00000000.tar"
    before = make.contents(path)
    [gone] = [uid for _, uid in uids_in(path)][:1]
    remove_samples(built, [gone], [path.name], PIECE)
    assert make.contents(path) == [item for item in before if not item[0].startswith(gone)]


def test_counts_and_lists_follow(built):
    gone = uids(built)["00000001.tar"][0]
    remove_samples(built, [gone], ["00000001.tar"], PIECE)
    assert json.loads((built / "00000001_stats.json").read_text()) == {"successes": 6}
    assert json.loads((built / "meta.json").read_text())["output_count"] == 20
    assert gone not in to_hex(load_subset(built / "sample_ids.npy"))
    assert gone not in pq.read_table(built / "index.parquet")["uid"].to_pylist()
    assert manifest.verify(built, manifest.load(built / "manifest.json")) == []


def test_the_parquet_beside_a_shard_loses_its_rows(shards, make):
    rows = {"key": [f"{n:09d}" for n in range(7)], "url": [f"http://x/{n}" for n in range(7)]}
    pq.write_table(pa.table(rows), shards / "00000000.parquet")
    remove_samples(shards, [make.uid_of(3)], ["00000000.tar"])
    left = pq.read_table(shards / "00000000.parquet")
    assert left["url"].to_pylist() == [f"http://x/{n}" for n in (0, 1, 2, 4, 5, 6)]


def test_the_same_again_changes_nothing(built, make):
    gone = uids(built)["00000001.tar"]
    remove_samples(built, gone, ["00000001.tar"], PIECE)
    assert uids(built)["00000001.tar"] == []
    before = make.files_of(built)
    report = remove_samples(built, gone, ["00000001.tar"], PIECE)
    assert (report.shards, report.samples) == ([], 0)
    assert make.files_of(built) == before
    assert np.array_equal(len(before["00000001.tar"]), PIECE)


def test_every_repetition_goes(shards, select, tmp_path):
    build_shards(shards, select(1, 1, 1, 2), tmp_path / "b", shard_size=2)
    names = [path.name for path in (tmp_path / "b").glob("*.tar")]
    gone = [uid for found in uids(tmp_path / "b").values() for uid in found]
    thrice = max(gone, key=gone.count)
    assert remove_samples(tmp_path / "b", [thrice], names).samples == 3


def test_a_shard_that_is_not_there(shards):
    with pytest.raises(MissingError, match=r"x\.tar: no such shard, so what it holds cannot be"):
        remove_samples(shards, ["0" * 32], ["x.tar"])
