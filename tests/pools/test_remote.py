"""Metadata in a store, as the workers hear of it."""

from pathlib import Path

from datacomp.pools.partitions import Partition
from datacomp.pools.ranges import Stamp
from datacomp.pools.remote import RemoteMetadata


def test_a_partition_hears_of_its_own_files_alone(tmp_path):
    names = ("a/1.parquet", "a/1.npz", "a/2.parquet", "a/2.npz", "b/1.npz", "b/2.parquet")
    stamps = {name: Stamp(f"s3://b/m/{name}", 9, name) for name in names}
    every = RemoteMetadata("s3://b/m", tmp_path, stamps)
    for name, own in (("a/2", ("a/2.parquet", "a/2.npz")), ("b/2", ("b/2.parquet",))):
        partition = Partition(0, Path("pool"), tmp_path, 0, tmp_path / f"{name}.parquet")
        found = RemoteMetadata("s3://b/m", tmp_path, {file: stamps[file] for file in own})
        assert every.of(partition) == found
