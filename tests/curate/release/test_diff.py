import pytest
from datacomp.curate.release import diff_releases
from datacomp.errors import UsageError

from .conftest import uid_of, write_shard


def test_files_and_samples(publish, dataset, releases):
    publish("1")
    write_shard(dataset, 1, [5, 6, 7, 8, 9], n6="another caption")
    write_shard(dataset, 3, [15, 16])
    (dataset / "00000002.tar").unlink()
    (dataset / "00000002_stats.json").unlink()
    publish("2")
    report = diff_releases(releases, "1", "2")
    assert report.files.added == ["00000003.tar", "00000003_stats.json"]
    assert report.files.removed == ["00000002.tar", "00000002_stats.json"]
    assert report.files.changed == ["00000001.tar", "index.parquet"]
    assert report.samples.added == sorted(map(uid_of, [15, 16]))
    assert report.samples.removed == sorted(map(uid_of, range(10, 15)))
    assert report.samples.changed == [uid_of(6)]
    assert report.unknown == []
    new = ["00000003.tar", "00000001.tar", "index.parquet", "00000003_stats.json"]
    assert report.bytes == sum((dataset / name).stat().st_size for name in new)


def test_both_ways(publish, dataset, releases):
    publish("1")
    write_shard(dataset, 3, [15])
    publish("2")
    there, back = diff_releases(releases, "1", "2"), diff_releases(releases, "2", "1")
    assert there.samples.added == back.samples.removed == [uid_of(15)]
    assert back.samples.added == []


def test_a_sample_that_moves_has_not_changed(publish, dataset, releases):
    publish("1")
    write_shard(dataset, 0, [0, 1, 2, 3])
    write_shard(dataset, 1, [4, 9, 8, 7, 6, 5])
    publish("2")
    samples = diff_releases(releases, "1", "2").samples
    assert (samples.added, samples.removed, samples.changed) == ([], [], [])


def test_the_same_version(publish, releases):
    publish("1")
    report = diff_releases(releases, "1", "1")
    assert report.bytes == 0
    assert report.files.added == report.files.removed == report.files.changed == []


def test_without_an_index_samples_are_not_compared(publish, dataset, releases):
    for path in dataset.iterdir():
        path.unlink()
    (dataset / "a").write_text("a")
    publish("1")
    (dataset / "b").write_text("a")
    publish("2")
    report = diff_releases(releases, "1", "2")
    assert report.samples is None
    assert (report.files.added, report.bytes) == (["b"], 0)


def test_unknown_versions(publish, releases):
    publish("1")
    with pytest.raises(UsageError, match="no version '3'"):
        diff_releases(releases, "1", "3")
