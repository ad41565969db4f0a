"""Folders: the order of files does not matter, broken paths do, large ones are HAMTs."""

import pytest
from datacomp.distribution.ipfs import dag, hamt
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.dagpb import Link
from datacomp.distribution.ipfs.directory import directory
from datacomp.distribution.ipfs.unixfs import Node
from datacomp.errors import DataError
from hypothesis import given
from hypothesis import strategies as st

from .conftest import name

X = name(b"x")
names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
paths = st.lists(names.filter(lambda text: text not in (".", "..")), min_size=1, max_size=3)


@given(st.dictionaries(paths.map("/".join), st.binary(max_size=3), max_size=12), st.randoms())
def test_every_file_is_found_again(files, chance):
    tops = {path.split("/")[0] for path in files}
    files = {path: data for path, data in files.items() if "/" not in path or path in tops}
    files = {path: data for path, data in files.items() if path not in tops or "/" not in path}
    nodes = [(path, name(data)) for path, data in files.items()]
    made = directory(nodes)
    chance.shuffle(nodes)
    assert directory(nodes) == made
    blocks = {CID.parse(cid): block for cid, block in made.blocks.items()}
    for path, node in nodes:
        found, _ = dag.resolve(blocks.__getitem__, CID.parse(made.cid), path.split("/"))
        assert str(found) == node.cid
    assert made.size == sum(node.size for _, node in nodes)


def test_folders_inside_folders():
    made = directory([("a/b/c", X), ("a/d", X), ("e", X)])
    b = directory([("c", X)])
    a = directory([("b", b), ("d", X)])
    assert made == directory([("a", a), ("e", X)])
    assert {a.cid, b.cid} < set(made.blocks)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a", "a"], "'a': stands there twice"),
        (["a", "a/b"], "'a': both a file and a folder"),
        (["a/b", "a"], "'a': both a file and a folder"),
        (["a/b/c", "a/b"], "'a/b': both a file and a folder"),
        (["../a"], "'../a': not a plain relative path"),
        (["/a"], "'/a': not a plain relative path"),
        (["a//b"], "'a//b': not a plain relative path"),
        ([""], "'': not a plain relative path"),
        (["/".join("a" * 129)], "more than 128 folders deep"),
    ],
)
def test_broken_paths(entries, message):
    with pytest.raises(DataError) as found:
        directory((path, X) for path in entries)
    assert message in str(found.value)


def test_murmur3_of_names():
    """Values of MurmurHash3_x64_128 as its author's program gives them, the first half."""
    assert hamt.name_hash(b"").hex() == "0000000000000000"
    assert hamt.name_hash(b"hello").hex() == "cbd8a7b341bd9b02"
    assert hamt.name_hash(b"hello, world").hex() == "342fac623a5ebc8e"
    assert hamt.name_hash(b"The quick brown fox jumps over the lazy dog.").hex() == (
        "cd99481f9ee902c9"
    )


def test_names_with_the_same_hash_cannot_share_a_hamt(monkeypatch):
    monkeypatch.setattr(hamt, "name_hash", lambda text: bytes(8))
    links = [Link(b"", b"a", 0), Link(b"", b"b", 0)]
    with pytest.raises(DataError, match="b'a' and b'b' have the same hash"):
        hamt.build(links, lambda block, below: Link(b"", b"", 0))


def test_a_hamt_is_listed_and_searched():
    nodes = {f"{'long name ' * 20}{number}": Node(X.cid, 1, 1) for number in range(1300)}
    made = directory(nodes.items())
    assert len(made.blocks) > 100
    blocks = {CID.parse(cid): block for cid, block in made.blocks.items()}
    root = CID.parse(made.cid)
    listed = list(dag.list_folder(blocks.__getitem__, root))
    assert {item.name for item in listed} == set(nodes)
    assert len(listed) == len(nodes)
    for path in list(nodes)[:50]:
        assert str(dag.resolve(blocks.__getitem__, root, [path])[0]) == X.cid
