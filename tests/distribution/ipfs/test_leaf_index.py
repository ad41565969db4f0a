import hashlib

from datacomp.distribution.ipfs import leaf_index
from datacomp.distribution.ipfs.leaf_index import IN_BLOCK, LeafIndex
from datacomp.distribution.ipfs.unixfs import FileTree
from datacomp.distribution.stretch import Spill

CHUNK = 1 << 20


def test_every_leaf_is_found_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(leaf_index, "AT_ONCE", 300)
    twins = hashlib.sha256(b"twins").digest()
    digests = [
        [hashlib.sha256(b"%d %d" % (file, leaf)).digest() for leaf in range(count)]
        for file, count in enumerate([1, 700, 3, 500])
    ]
    # More leaves of one beginning than a block has, as in a file of zeros.
    digests.append([twins[:8] + bytes(24)] * (2 * IN_BLOCK) + [twins])
    with Spill(tmp_path) as spill:
        trees = [FileTree(CHUNK * len(rows), b"".join(rows)) for rows in digests]
        trees[1].set_aside(spill)
        index = LeafIndex(trees, spill)
        for file, rows in enumerate(digests[:-1]):
            for leaf, digest in enumerate(rows):
                assert list(index.find(digest)) == [(file, leaf)]
        assert list(index.find(twins)) == [(4, leaf) for leaf in range(2 * IN_BLOCK + 1)]
        for strange in (bytes(32), b"\xff" * 32, hashlib.sha256(b"strange").digest()):
            assert list(index.find(strange)) == []
        assert list(LeafIndex([], spill).find(twins)) == []
