"""A dataset that grows by increments: each version costs what is new, for its keeper and for all.

The steps are those of "Growing" in docs/releases.md.
"""

import numpy as np
import pytest
from datacomp.curate.release import create_release, diff_releases, revoke_samples
from datacomp.curate.shards import append_shards, build_shards, check_shards
from datacomp.curate.shards.published import get_subset
from datacomp.curate.subset import combine
from datacomp.distribution.getting import Options, get
from datacomp.distribution.release import Plan
from datacomp.distribution.serving import brace_urls
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import load_subset, save_subset, to_hex

PIECE = 16 << 10
HTTP = Options(bittorrent=False)
UPDATE = Options(bittorrent=False, update=True)


@pytest.fixture
def grown(tmp_path, picture, key):
    """Version 1 of sixty photographs, version 2 of sixty-three; the reports of both."""
    photos = tmp_path / "photos"
    photos.mkdir()

    def photograph(*numbers):
        for number in numbers:
            (photos / f"{number:03}.png").write_bytes(picture(number))
            (photos / f"{number:03}.txt").write_text(f"photograph {number}")

    def build(subset, out):
        build_shards(tmp_path / "pool.duckdb", subset, out, shard_size=10, pad=PIECE)

    def chosen(name):
        with Pool.open(tmp_path / "pool.duckdb") as pool:
            pool.add(open_source("folder", photos))
            save_subset(tmp_path / name, pool.uids())

    def publish(version):
        plan = Plan("photos", version, piece_length=PIECE)
        return create_release(tmp_path / "all", tmp_path / "releases", plan, key)

    photograph(*range(60))
    Pool.create(tmp_path / "pool.duckdb").close()
    chosen("1.npy")
    build(tmp_path / "1.npy", tmp_path / "all")
    first = publish("1")
    photograph(60, 61, 62)
    chosen("2.npy")
    combine("minus", [tmp_path / "2.npy", tmp_path / "1.npy"], tmp_path / "new.npy")
    build(tmp_path / "new.npy", tmp_path / "added")
    append_shards(tmp_path / "all", tmp_path / "added")
    return first, publish("2")


def test_a_version_costs_its_keeper_what_is_new(grown, tmp_path):
    first, second = grown
    assert (first.samples, second.samples) == (60, 63)
    news = [tmp_path / "all/00000006.tar"]
    renewed = ("00000006_stats.json", "index.parquet", "meta.json", "sample_ids.npy")
    news += [tmp_path / "all" / name for name in renewed]
    assert second.read == len(news)
    size = sum(path.stat().st_size for path in news)
    # Small files share pieces of the v1 torrent, and are remembered.
    assert second.bytes_read == size
    diff = diff_releases(tmp_path / "releases", "1", "2")
    assert diff.bytes == size
    assert diff.files.added == ["00000006.tar", "00000006_stats.json"]
    assert diff.files.changed == ["index.parquet", "meta.json", "sample_ids.npy"]
    assert diff.files.removed == []
    assert diff.samples.added == to_hex(load_subset(tmp_path / "new.npy"))
    assert (diff.samples.removed, diff.samples.changed) == ([], [])


def test_a_version_costs_others_what_is_new(grown, serving, tmp_path):
    server = serving(tmp_path / "releases")
    old = f"{server.url}versions/1/manifest.json"
    get(old, tmp_path / "copy", HTTP)
    report = get(server.url, tmp_path / "copy", UPDATE)
    assert (report.whole, report.version) == (True, "2")
    assert report.fetched_files == 5
    assert check_shards(tmp_path / "copy").problems == []
    assert brace_urls(tmp_path / "releases", server.url) == [
        f"{server.url}versions/2/photos/{{00000000..00000006}}.tar"
    ]


def test_samples_of_all_increments_are_fetched_and_taken_back(grown, serving, key, tmp_path):
    server = serving(tmp_path / "releases")
    before, new = load_subset(tmp_path / "1.npy"), load_subset(tmp_path / "new.npy")
    save_subset(tmp_path / "some.npy", np.concatenate([before[:2], new[:2]]))
    report = get_subset(server.url, tmp_path / "some.npy", tmp_path / "some", HTTP)
    assert (report.build.samples, report.build.missing) == (4, {})
    gone = [to_hex(before)[0], to_hex(new)[0]]
    plan = Plan("photos", "3", piece_length=PIECE)
    revoked = revoke_samples(
        tmp_path / "all", tmp_path / "releases", gone, "the owner asked", plan, key
    )
    assert revoked.shards == ["00000000.tar", "00000006.tar"]
    assert revoked.release.samples == 61
    get(server.url, tmp_path / "copy", HTTP)
    assert check_shards(tmp_path / "copy").problems == []
    assert check_shards(tmp_path / "all").problems == []
