"""A Ray cluster whose workers read an object store: the same bytes as one process and folders."""

import pytest
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.curate.selection import select, select_remote
from datacomp.curate.shards import build_shards, index_shards
from datacomp.filters.expression import parse_all
from datacomp.pools import Pool

WORDS = ["caption_length", "clip_score:arch=l14,fraction=0.3,exact=false"]


def test_index_build_and_filter(
    tmp_path, s3, write_shards, commonpool, subset, files_of, monkeypatch
):  # fmt: skip
    pytest.importorskip("ray", reason="the extra ray is not installed")
    shards = write_shards(tmp_path / "shards")
    metadata = commonpool(tmp_path / "metadata", files=3, rows=40)
    client = s3.client()
    for folder in (shards, metadata):
        for path in folder.rglob("*.*"):
            client.upload_file(str(path), "bucket", f"{folder.name}/{path.relative_to(folder)}")
    filters = parse_all(WORDS).filters
    with Pool.open(metadata) as pool:
        select(pool, filters, tmp_path / "kept.npy")
    index_shards(shards, 1)
    build_shards(shards, subset, tmp_path / "built", shard_size=3, workers=1)
    s3.asked.clear()

    # Workers take the address of the store from where they were started.
    shared = []
    with open_engine(EngineChoice("ray", "local", 2)) as cluster:
        reach = cluster.reach
        monkeypatch.setattr(cluster, "reach", lambda *places: shared.extend(places))
        report = index_shards("s3://bucket/shards", cluster, out=tmp_path / "index")
        build_shards(tmp_path / "index", subset, "s3://bucket/built", shard_size=3, workers=cluster)
        monkeypatch.setattr(cluster, "reach", reach)
        select_remote("s3://bucket/metadata", filters, "s3://bucket/kept.npy", engine=cluster)
    assert (report.shards, report.samples) == (4, 20)
    assert sum("GET /bucket/shards" in line for line in s3.asked) >= 4

    def stored(name):
        return client.get_object(Bucket="bucket", Key=name)["Body"].read()

    assert stored("kept.npy") == (tmp_path / "kept.npy").read_bytes()
    built = files_of(tmp_path / "built")
    keys = client.list_objects_v2(Bucket="bucket", Prefix="built/")["Contents"]
    found = {name: stored(f"built/{name}") for name in built}
    client.close()
    assert [item["Key"] for item in keys] == [f"built/{name}" for name in sorted(built)]
    for files in (found, built):
        del files["build.json"]  # the index of another place has another digest
    assert found == built
    assert shared == []  # no file system but that of each worker
