"""Naming a file for IPFS, against reading it and hashing it whole, which is the floor."""

import hashlib
import os

import pytest
from datacomp.distribution.ipfs.paths import name_path

SIZE = 1 << 30


@pytest.mark.parametrize("profile", ["unixfs-v1-2025", "legacy-256k", "unixfs-v0-2015"])
def test_cid_against_sha256(paired, tmp_path, profile):
    path = tmp_path / "file"
    part = os.urandom(1 << 24)
    with path.open("wb") as file:
        for _ in range(SIZE // len(part)):
            file.write(part)

    def whole():
        digest, buffer = hashlib.sha256(), bytearray(1 << 20)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
        return digest.hexdigest()

    assert name_path(path, profile).size == SIZE
    paired(f"CID of 1 GiB, {profile}", lambda: name_path(path, profile), whole, against="SHA-256")
