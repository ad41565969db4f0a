"""Trees of strangers: depth, size and names are bounded, and wrong ones end in one clear error."""

import hashlib

import pytest
from datacomp.distribution.ipfs import dag, dagpb, hamt
from datacomp.distribution.ipfs.cid import CID, DAG_PB, SHA2_256
from datacomp.distribution.ipfs.dagpb import Link
from datacomp.errors import DataError, MissingError, UnsafeInputError

from .conftest import made, name


class Store:
    """Blocks in memory; ``reads`` counts how often one was asked for."""

    def __init__(self):
        self.blocks, self.reads = {}, 0

    def put(self, block):
        cid = CID(1, DAG_PB, SHA2_256, hashlib.sha256(block).digest())
        self.blocks[cid] = block
        return cid

    def raw(self, data):
        cid = CID.parse(name(data).cid)
        self.blocks[cid] = data
        return cid

    def file(self, parts):
        """Tie (cid, claimed size) together."""
        links = [Link(cid.to_bytes(), b"", 0) for cid, _ in parts]
        return self.put(dagpb.encode(links, dagpb.file_message(size for _, size in parts)))

    def folder(self, entries, message=dagpb.DIRECTORY_MESSAGE):
        links = [Link(cid.to_bytes(), path, 0) for path, cid in entries]
        return self.put(dagpb.encode(links, message))

    def __call__(self, cid):
        self.reads += 1
        if cid not in self.blocks:
            raise MissingError(f"{cid}: no such block here")
        return self.blocks[cid]


SHARD = dagpb.hamt_message(bytes(32))


@pytest.fixture
def store():
    return Store()


def test_leaves_are_found_without_their_blocks(on_disk):
    data = made("seq251_5000000")
    blocks, _ = on_disk({"a": data})
    asked = []

    def counted(cid):
        asked.append(cid)
        return blocks.get(cid)

    root = CID.parse(name(data).cid)
    leaves = list(dag.leaves(counted, root, len(data)))
    assert asked == [root]
    assert [(leaf.offset, leaf.length) for leaf in leaves] == [
        (start, min(1 << 20, 5_000_000 - start)) for start in range(0, 5_000_000, 1 << 20)
    ]
    parts = (dag.content(leaf.cid, blocks.get(leaf.cid), leaf.length) for leaf in leaves)
    assert b"".join(parts) == data
    small = CID.parse(name(b"x").cid)
    assert list(dag.leaves(counted, small, 1)) == [(small, 0, 1)]
    assert asked == [root]


@pytest.mark.parametrize("profile", ["unixfs-v0-2015", "legacy-256k"])
def test_files_of_other_profiles_are_read(on_disk, profile):
    data = made("seq251_10000000")
    blocks, _ = on_disk({"a": data}, profile)
    root = CID.parse(name(data, profile).cid)
    assert dag.read_file(blocks.get, root, 10_000_000) == data
    with pytest.raises(UnsafeInputError, match="a file of more than 9,999,999 bytes; refused"):
        dag.read_file(blocks.get, root, 9_999_999)
    with pytest.raises(DataError, match="says 10,000,000 bytes where 9 belong"):
        list(dag.leaves(blocks.get, root, 9))


def test_a_file_that_is_too_deep(store):
    cid = store.raw(b"x")
    for _ in range(dag.MAX_FILE_DEPTH + 1):
        cid = store.file([(cid, 1)])
    message = f"{cid}: a file of more than 32 levels; refused"
    with pytest.raises(UnsafeInputError, match=message):
        dag.read_file(store, cid, 100)


def test_a_file_that_grows_tenfold_with_every_level_is_bounded_by_its_size(store):
    cid, size = store.raw(b"x" * 100), 100
    for _ in range(12):
        cid, size = store.file([(cid, size)] * 10), size * 10
    with pytest.raises(UnsafeInputError, match="a file of more than 1,000 bytes; refused"):
        dag.read_file(store, cid, 1000)
    with pytest.raises(DataError, match="says 100,000,000,000,000 bytes where 1,000 belong"):
        next(dag.leaves(store, cid, 1000))
    assert store.reads < 40


def test_a_file_of_endless_nothing(store):
    cid = store.file([])
    for _ in range(20):
        cid = store.file([(cid, 0)] * 100)
    with pytest.raises(DataError, match="with nothing below one of its links"):
        dag.read_file(store, cid, 1000)
    assert store.reads == 1


def test_a_circle_cannot_be_made_but_a_source_that_lies_ends_it_too(store):
    """Two blocks cannot name each other; a source could still answer as if they did."""
    inner = store.file([(store.raw(b"y"), 1)])
    circle = dagpb.encode([Link(inner.to_bytes(), b"", 0)], dagpb.file_message([1]))
    with pytest.raises(UnsafeInputError, match="more than 32 levels"):
        dag.read_file(lambda cid: circle, inner, 100)
    folder = dagpb.encode([Link(inner.to_bytes(), b"a", 0)], dagpb.DIRECTORY_MESSAGE)
    with pytest.raises(UnsafeInputError, match="a tree deeper than 1,024; refused"):
        list(dag.walk(lambda cid: folder, inner))


def test_blocks_that_do_not_fit(store):
    x = store.raw(b"xyz")
    wrapped = store.put(dagpb.encode([], b"\x08\x02\x12\x03abc\x18\x03"))
    cases = {
        "not a leaf of 2 bytes": store.file([(x, 2)]),
        "says 3 bytes where 2 belong": store.file([(wrapped, 2)]),
        "not a file": store.folder([(b"a", x)]),
        "not a UnixFS block": store.put(b"nonsense"),
        "both bytes and links": store.put(
            dagpb.encode([Link(x.to_bytes(), b"", 0)], b"\x08\x02\x12\x01a\x18\x04\x20\x03")
        ),
        "neither a file nor a folder": CID(1, 0x71, SHA2_256, bytes(32)),
    }
    store.blocks[cases["neither a file nor a folder"]] = b""
    for text, cid in cases.items():
        with pytest.raises(DataError, match=text):
            dag.read_file(store, cid, 1000)


def test_names_are_looked_up(store):
    x = store.raw(b"x")
    inner = store.folder([(b"x", x)])
    root = store.folder([(b"inner", inner)])
    assert dag.resolve(store, root, ["inner", "x"]) == (x, [root, inner])
    assert dag.resolve(store, root, []) == (root, [])
    with pytest.raises(MissingError, match="there is no 'y' in this folder"):
        dag.resolve(store, root, ["inner", "y"])
    with pytest.raises(DataError, match="not a folder, so there is no 'z' in it"):
        dag.resolve(store, root, ["inner", "x", "z"])


def test_a_folder_that_is_listed(store):
    x = store.raw(b"x")
    root = store.folder([(b"b", x), (b"\xc3\xa9", x)])
    assert [(item.name, item.cid) for item in dag.list_folder(store, root)] == [("b", x), ("é", x)]
    with pytest.raises(DataError, match="a name that is not UTF-8"):
        list(dag.list_folder(store, store.folder([(b"\xff", x)])))
    with pytest.raises(DataError, match="not a folder"):
        list(dag.list_folder(store, x))


def test_a_hamt_that_repeats_itself_is_refused(store):
    """A shard in 256 places would list its names 256 times, and 256 times more at each level."""
    x = store.raw(b"x")
    place = hamt.name_hash(b"name")
    cid = store.folder([(b"%02X" % place[3] + b"name", x)], SHARD)
    for _ in range(3):
        cid = store.folder([(b"%02X" % number, cid) for number in range(256)], SHARD)
    with pytest.raises(DataError, match="b'name' stands where its hash does not belong"):
        list(dag.list_folder(store, cid))
    assert store.reads < 10


def test_hamts_that_are_broken(store):
    x = store.raw(b"x")
    deep = store.folder([(b"00", x)], SHARD)
    for _ in range(8):
        deep = store.folder([(b"00", deep)], SHARD)
    empty = store.folder([(b"00", store.folder([], SHARD))], SHARD)
    cases = {
        "a folder sharded too deeply": deep,
        "is no name in a sharded folder": store.folder([(b"zz", x)], SHARD),
        "not a folder": empty,
    }
    for text, cid in cases.items():
        with pytest.raises(DataError, match=text):
            list(dag.list_folder(store, cid))
    flat = store.folder([(b"00", store.folder([]))], SHARD)
    with pytest.raises(DataError, match="not a folder"):
        list(dag.list_folder(store, flat))
