"""Files by recipe, their trees on this disk, and what others call them."""

import json
from pathlib import Path

import pytest
from datacomp.distribution.ipfs.blocks import BlockMap
from datacomp.distribution.ipfs.directory import directory
from datacomp.distribution.ipfs.unixfs import FileHasher, FileTree

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_bytes())


def made(recipe):
    """Return the bytes of a recipe of vectors.json, or the text itself."""
    kind, _, size = recipe.partition("_")
    if kind == "zeros":
        return bytes(int(size))
    if kind == "seq251":
        return (bytes(range(251)) * (int(size) // 251 + 1))[: int(size)]
    return {"empty": b"", "hello_world_nl": b"hello world\n"}.get(recipe, recipe.encode())


def name(data, profile="unixfs-v1-2025"):
    hasher = FileHasher(profile)
    hasher.update(data)
    return hasher.finish()


@pytest.fixture
def vectors():
    return VECTORS


@pytest.fixture
def on_disk(tmp_path):
    """Return a maker of (blocks, folder) of files given as a dictionary."""

    def on_disk(files, profile="unixfs-v1-2025"):
        found, nodes = [], []
        for number, (path, data) in enumerate(files.items()):
            place = tmp_path / f"file-{number}"
            place.write_bytes(data)
            node = name(data, profile)
            found.append((place, FileTree(node.size, node.leaves, profile)))
            nodes.append((path, node))
        folder = directory(nodes, profile)
        return BlockMap(found, [folder]), folder

    return on_disk


@pytest.fixture
def files(shard):
    """Four shards of two blocks, and a small file."""
    return {f"{n:05d}.tar": shard(n, 2) for n in range(4)} | {"README.md": b"birds\n"}
