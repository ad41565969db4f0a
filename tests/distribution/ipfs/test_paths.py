"""Naming what lies on this disk."""

import hashlib
import os

import pytest
from datacomp.distribution.ipfs.cid import CID, DAG_PB, SHA2_256
from datacomp.distribution.ipfs.directory import Directory, directory
from datacomp.distribution.ipfs.paths import name_path
from datacomp.distribution.ipfs.unixfs import Node
from datacomp.errors import DataError, MissingError, UsageError

from .conftest import made, name

DATA = made("seq251_5000000")


FILES = {"a.txt": b"alpha\n", "b.txt": b"beta\n", "sub/c.txt": b"gamma\n"}
ENTRIES = [(path, name(data)) for path, data in FILES.items()]


@pytest.fixture
def tree(tmp_path):
    for path, data in FILES.items():
        place = tmp_path / "tree" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return tmp_path / "tree"


@pytest.mark.parametrize("profile", ["unixfs-v1-2025", "legacy-256k", "unixfs-v0-2015"])
def test_files_and_folders(tree, vectors, profile):
    (tree / "sub" / "c.txt").chmod(0o400)
    about = vectors["javascript"][profile]["folders"]["dir_3_small"]
    for workers in (1, 3):
        found = name_path(tree, profile, workers=workers)
        assert isinstance(found, Directory)
        assert (found.cid, found.tsize, found.size) == (about["cid"], about["tsize"], 17)
    assert name_path(tree / "sub" / "c.txt", profile).cid == about["nodes"]["root/sub/c.txt"]
    (tree / "big").write_bytes(DATA)
    assert name_path(str(tree / "big"), profile) == name(DATA, profile)


def test_hidden_files_are_left_out_unless_asked_for(tree):
    before = name_path(tree)
    (tree / ".hidden").write_bytes(b"x")
    (tree / ".folder").mkdir()
    (tree / ".folder" / "y").write_bytes(b"y")
    assert name_path(tree) == before
    entries = [*ENTRIES, (".hidden", name(b"x")), (".folder/y", name(b"y"))]
    assert name_path(tree, hidden=True) == directory(entries)
    assert name_path(tree / ".hidden") == name(b"x")


def test_empty_folders_count(tmp_path, vectors):
    empty = vectors["javascript"]["unixfs-v1-2025"]["folders"]["dir_empty"]
    assert name_path(tmp_path).cid == empty["cid"]
    (tmp_path / "inside").mkdir()
    found = name_path(tmp_path)
    assert found == directory([("inside", directory([]))])
    assert empty["cid"] in found.blocks


def test_links_stay_links(tree):
    """A link is a block of its own that holds the target; it is not followed, even to nowhere."""
    (tree / "link").symlink_to("../somewhere/else")
    found = name_path(tree)
    # dag-pb of the UnixFS message {Type: symlink, Data: "../somewhere/else"}
    block = bytes.fromhex("0a1508041211") + b"../somewhere/else"
    digest = hashlib.sha256(block).digest()
    link = Node(str(CID(1, DAG_PB, SHA2_256, digest)), 0, len(block))
    assert found == directory([*ENTRIES, ("link", link)])


def test_what_cannot_be_named(tmp_path):
    with pytest.raises(MissingError, match="none: no such file or folder"):
        name_path(tmp_path / "none")
    with pytest.raises(UsageError, match="unknown CID profile 'x'"):
        name_path(tmp_path, "x")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DataError, match="pipe: neither a file nor a folder"):
            name_path(path)


def test_names_that_are_not_utf_8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(UsageError, match=r"the name '\\udcff' is not UTF-8"):
        name_path(tmp_path)
