"""Metadata in a store, as the workers hear of it."""

from pathlib import Path

from datacomp.pools.partitions import Partition
from datacomp.pools.remote import RemoteMetadata


def test_a_partition_hears_of_its_own_features_alone(tmp_path):
    every = RemoteMetadata("s3://b/m", tmp_path, ("a/1.npz", "a/2.npz", "b/1.npz"))
    for name, features in (("a/2", ("a/2.npz",)), ("b/2", ())):
        partition = Partition(0, Path("pool"), tmp_path, 0, tmp_path / f"{name}.parquet")
        assert every.of(partition) == RemoteMetadata("s3://b/m", tmp_path, features)
