"""CIDs, CARs and IPNS records are the same as those of the JavaScript implementations."""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from datacomp.distribution.ipfs import car, dag, ipns
from datacomp.distribution.ipfs.blocks import BlockMap
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.directory import Directory, directory
from datacomp.distribution.ipfs.profiles import PROFILES
from datacomp.distribution.ipfs.push import root_last
from datacomp.distribution.ipfs.unixfs import FileHasher, FileTree, Node
from datacomp.errors import IntegrityError

Recipe = tuple[int, int]
"""Size and step: see ``filled`` of peer.mjs."""


def filled(size: int, step: int) -> bytes:
    i = np.arange(size, dtype=np.int64)
    return ((i * step + (i >> 8) * 7 + 3) % 251).astype(np.uint8).tobytes()


def hashed(recipe: Recipe, profile: str) -> Node:
    hasher = FileHasher(profile)
    hasher.update(filled(*recipe))
    return hasher.finish()


def both(peer, profile: str, files: dict[str, Recipe]) -> tuple[Directory, dict]:
    """Have the same files named by the peer and by us."""
    entries = [{"path": path, "size": size, "step": step} for path, (size, step) in files.items()]
    theirs = peer.ask("add", profile=profile, entries=entries)
    ours = {path: hashed(recipe, profile) for path, recipe in files.items()}
    for path, node in ours.items():
        assert theirs["cids"][path] == node.cid, (path, files[path])
    return directory(ours.items(), profile), theirs


def sizes(profile: str, rng: random.Random) -> list[int]:
    """Return sizes at the edges of chunks, and some at random."""
    chunk = PROFILES[profile].chunk
    edges = [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1]
    return edges + [rng.randrange(6 * chunk) for _ in range(8)]


@pytest.mark.parametrize("profile", PROFILES)
def test_files_and_folders_of_random_sizes_have_the_same_cids(peer, profile):
    rng = random.Random(profile)
    files = {
        f"{'sub/' * rng.randrange(3)}{number:02d}-é.bin": (size, rng.randrange(1, 250))
        for number, size in enumerate(sizes(profile, rng))
    }
    ours, theirs = both(peer, profile, files)
    assert (ours.cid, ours.tsize) == (theirs["cid"], theirs["tsize"])


@pytest.mark.parametrize("profile", ["legacy-256k", "unixfs-v0-2015"])
def test_trees_of_several_levels_have_the_same_cids(peer, profile):
    """One chunk past the links of an inner block: a level more."""
    chunk = PROFILES[profile].chunk
    both(peer, profile, {"full": (174 * chunk, 3), "over": (174 * chunk + 1, 3)})


@pytest.mark.parametrize("profile", PROFILES)
def test_a_folder_of_10000_files_becomes_the_same_hamt(peer, profile):
    files = {f"shard-{number:08d}.tar": (number % 40, 1 + number % 7) for number in range(10_000)}
    ours, theirs = both(peer, profile, files)
    assert theirs["type"] == "hamt-sharded-directory"
    assert (ours.cid, ours.tsize) == (theirs["cid"], theirs["tsize"])


@pytest.mark.parametrize("profile", PROFILES)
def test_folders_of_random_sizes_are_sharded_alike(peer, profile):
    """Long names, so that the threshold is met with few files."""
    rng = random.Random(f"folders {profile}")
    for _ in range(6):
        count = rng.randrange(1_000, 1_500)
        files = {f"{'n' * rng.randrange(150, 230)}{k}": (k % 9, 1) for k in range(count)}
        ours, theirs = both(peer, profile, files)
        assert (ours.cid, ours.tsize) == (theirs["cid"], theirs["tsize"])


# -- CARs ------------------------------------------------------------------------------------


def on_disk(folder: Path, files: dict[str, Recipe], profile: str) -> tuple[BlockMap, Directory]:
    found, nodes = [], []
    for number, (path, recipe) in enumerate(files.items()):
        place = folder / str(number)
        place.write_bytes(filled(*recipe))
        node = hashed(recipe, profile)
        found.append((place, FileTree(node.size, node.leaves, profile)))
        nodes.append((path, node))
    made = directory(nodes, profile)
    return BlockMap(found, [made]), made


@pytest.mark.parametrize("profile", PROFILES)
def test_our_cars_are_read_by_the_peer(peer, tmp_path, profile):
    files = {"a.tar": (3_000_000, 1), "sub/b.tar": (2_500_000, 5), "m.json": (2, 9), "none": (0, 1),
             **{f"many/{'x' * 200}{k}": (k % 5, 1) for k in range(1_300)}}  # fmt: skip
    blocks, folder = on_disk(tmp_path, files, profile)
    root = CID.parse(folder.cid)
    with (tmp_path / "ours.car").open("wb") as file:
        file.writelines(car.write([root], dag.walk(blocks.get, root)))
    read = peer.ask("readCar", path=str(tmp_path / "ours.car"))
    assert read["root"] == folder.cid
    assert read["files"] == {
        path: hashlib.sha256(filled(*recipe)).hexdigest() for path, recipe in files.items()
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_cars_for_kubo_are_read_by_the_peer(peer, tmp_path, profile):
    """Leaves first, the root last: any order is allowed."""
    data = filled(3_000_000, 1) + bytes(3_000_000)
    (tmp_path / "file").write_bytes(data)
    hasher = FileHasher(profile)
    hasher.update(data)
    node = hasher.finish()
    blocks = BlockMap([(tmp_path / "file", FileTree(node.size, node.leaves, profile))])
    with (tmp_path / "ours.car").open("wb") as file:
        file.writelines(root_last(blocks, CID.parse(node.cid)))
    read = peer.ask("readCar", path=str(tmp_path / "ours.car"))
    assert (read["root"], read["files"]) == (node.cid, {"": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize("profile", PROFILES)
def test_cars_of_the_peer_are_read_by_us(peer, tmp_path, profile):
    files = {"a.tar": (3_000_000, 1), "sub/b.tar": (2_500_000, 5),
             **{f"many/{'x' * 200}{k}": (k % 5, 1) for k in range(1_300)}}  # fmt: skip
    entries = [{"path": path, "size": size, "step": step} for path, (size, step) in files.items()]
    where = tmp_path / "theirs.car"
    made = peer.ask("writeCar", profile=profile, entries=entries, path=str(where))
    with where.open("rb") as file:
        reader = car.Reader(file, "theirs.car")
        found = {cid.digest: block for cid, block in reader}
    assert [str(root) for root in reader.roots] == [made["cid"]]
    # The peer's store knows blocks by their digest only, so a CID in its CAR may have any codec.
    assert {digest.hex() for digest in found} == set(made["digests"])

    def blocks(cid: CID) -> bytes:
        return found[cid.digest]

    root = CID.parse(made["cid"])
    for path, recipe in files.items():
        end, _ = dag.resolve(blocks, root, path.split("/"))
        assert dag.read_file(blocks, end, 1 << 22) == filled(*recipe)
    many, _ = dag.resolve(blocks, root, ["many"])
    names = {item.name for item in dag.list_folder(blocks, many)}
    assert names == {path.removeprefix("many/") for path in files if path.startswith("many/")}


def test_a_bit_flipped_in_a_car_of_the_peer_is_seen(peer, tmp_path):
    where = tmp_path / "theirs.car"
    entries = [{"path": "a", "size": 100_000, "step": 1}]
    peer.ask("writeCar", profile="unixfs-v1-2025", entries=entries, path=str(where))
    data = bytearray(where.read_bytes())
    data[len(data) // 2] ^= 1
    where.write_bytes(data)
    with where.open("rb") as file, pytest.raises(IntegrityError, match="are not this block"):
        list(car.Reader(file, "theirs.car"))


# -- IPNS ------------------------------------------------------------------------------------

SEED = bytes(range(32))
VALUE = "/ipfs/bafybeic4cv6hcwodx32abizz7x56fzoxn4n5pjl6nn4yx6tiwe2vzsj54e"


class Key:
    """An Ed25519 key from a seed."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.key.public_key().public_bytes_raw().hex()

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


def test_our_records_are_valid_to_the_peer(peer):
    key = Key(SEED)
    name = ipns.name_of(key.public)
    expires = datetime.now(UTC) + timedelta(hours=1)
    record = ipns.create_record(key, VALUE, 7, expires)
    text = base64.b64encode(record).decode()
    read = peer.ask("checkRecord", name=name, record=text)
    assert (read["value"], read["sequence"]) == (VALUE, 7)
    assert read["validity"].startswith(f"{expires:%Y-%m-%dT%H:%M:%S.%f}")
    other = ipns.name_of(Key(bytes(32)).public)
    answer = peer.try_("checkRecord", name=other, record=text)
    assert answer["error"].startswith("SignatureVerificationError")
    flipped = bytearray(record)
    flipped[-40] ^= 1
    answer = peer.try_("checkRecord", name=name, record=base64.b64encode(flipped).decode())
    assert answer["error"].startswith("SignatureVerificationError")


@pytest.mark.parametrize("v1", [False, True])
def test_records_of_the_peer_are_valid_to_us(peer, v1):
    made = peer.ask("createRecord", seed=SEED.hex(), value=VALUE, sequence=12, lifetime=3_600_000,
                    v1=v1)  # fmt: skip
    assert made["name"] == ipns.name_of(Key(SEED).public)
    assert made["peer"] == ipns.peer_id_of(Key(SEED).public)
    record = ipns.read_record(base64.b64decode(made["record"]), made["name"])
    assert (record.value, record.sequence) == (VALUE, 12)
    assert record.ttl == timedelta(minutes=5)
    with pytest.raises(IntegrityError, match="not signed by the key of this name"):
        ipns.read_record(base64.b64decode(made["record"]), ipns.name_of(Key(bytes(32)).public))
