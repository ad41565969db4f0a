"""Every CID in vectors.json comes out the same: files, folders, HAMTs, CARs, an IPNS name."""

import hashlib

import pytest
from datacomp.distribution.ipfs import car, dag, ipns
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.directory import directory
from datacomp.distribution.ipfs.unixfs import FileHasher

from .conftest import VECTORS, made, name

FILES = [(profile, recipe, cid) for profile, found in VECTORS["javascript"].items()
         for recipe, cid in found["files"].items()]  # fmt: skip
FOLDERS = [(profile, folder, about) for profile, found in VECTORS["javascript"].items()
           for folder, about in found["folders"].items()]  # fmt: skip


@pytest.mark.parametrize(("profile", "recipe", "cid"), FILES)
def test_files_of_the_javascript_importer(profile, recipe, cid):
    assert name(made(recipe), profile).cid == cid


@pytest.mark.parametrize(("profile", "folder", "about"), FOLDERS)
def test_folders_of_the_javascript_importer(profile, folder, about):
    files = VECTORS["folders"].get(folder)
    if files is None:
        assert folder == "dir_6000_files_hamt"
        files = {f"{number:08d}.txt": str(number) for number in range(6000)}
    nodes = {path: name(text.encode(), profile) for path, text in files.items()}
    found = directory(nodes.items(), profile)
    assert (found.cid, found.tsize) == (about["cid"], about["tsize"])
    for path, cid in about.get("nodes", {}).items():
        inside = path.removeprefix("root").removeprefix("/")
        assert cid == nodes[inside].cid if inside in nodes else cid in found.blocks


def stream(seed, size):
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    key = hashlib.sha256(seed.encode()).digest()
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    zeros = bytes(1 << 22)
    while size:
        part = zeros[: min(size, len(zeros))]
        size -= len(part)
        yield encryptor.update(part)


STREAMS = {f"{about['profile']}-{about.get('size', 'text')}": about
           for about in VECTORS["kubo"]["streams"]}  # fmt: skip


@pytest.mark.parametrize("about", STREAMS.values(), ids=STREAMS)
def test_streams_of_kubo(about):
    hasher = FileHasher(about["profile"])
    text = about.get("text")
    for part in [text.encode()] if text else stream(about["seed"], about["size"]):
        hasher.update(part)
    assert hasher.finish().cid == about["cid"]


@pytest.mark.parametrize("about", VECTORS["kubo"]["folders"], ids=lambda about: about["kind"])
def test_folders_at_kubos_threshold(about):
    """One byte more, and a folder becomes a HAMT."""
    alphabet = "abcdefghijklmnopqrstuvwxyz01234567890-_"
    lengths = [about["a"]] * (about["n"] - 1) + [about["b"]]
    letters = b"".join(stream(about["seed"], sum(lengths)))
    node, at, entries = name(b"x", about["profile"]), 0, []
    for length in lengths:
        entries.append(("".join(alphabet[b % 39] for b in letters[at : at + length]), node))
        at += length
    found = directory(entries, about["profile"])
    assert found.cid == about["cid"]
    assert (len(found.blocks) > 1) == about["kind"].startswith("HAMT")


def test_the_folder_that_the_exporter_has_read(on_disk):
    about = VECTORS["car"]
    files = {path: made(recipe) for path, recipe in about["files"].items()}
    blocks, folder = on_disk(files)
    assert folder.cid == about["cid"]
    assert len(dict(dag.walk(blocks.get, CID.parse(folder.cid)))) == about["blocks"]


def test_the_car_that_helia_exports_has_as_many_bytes(on_disk):
    about = VECTORS["car"]["one_file"]
    blocks, _ = on_disk({"a": made(about["recipe"])})
    root = CID.parse(about["cid"])
    parts = car.write([root], dag.walk(blocks.get, root))
    assert sum(map(len, parts)) == about["bytes"]


def test_the_name_of_a_key():
    from datacomp.distribution.release import SigningKey

    about = VECTORS["ipns"]
    key = SigningKey.from_seed(bytes.fromhex(about["seed_private_key_hex"]))
    assert ipns.name_of(key.public) == about["name"]
    assert ipns.peer_id_of(key.public) == about["peer_id"]
    assert ipns.key_of(about["name"]) == ipns.key_of(about["peer_id"]) == key.public
