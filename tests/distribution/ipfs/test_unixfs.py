"""Files as trees: the same however they come, whole again from their blocks."""

import hashlib
import random

import pytest
from datacomp.distribution.ipfs import dagpb
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.profiles import PROFILES, Profile, get_profile
from datacomp.distribution.ipfs.unixfs import (
    FileHasher,
    FileTree,
    Node,
    node_of_leaves,
)
from datacomp.errors import DataError, UsageError
from hypothesis import given
from hypothesis import strategies as st

from .conftest import name

SMALL = [
    Profile("raw", 16, 3, 1, True, True),
    Profile("wrapped", 16, 3, 0, False, False),
]
"""Chunks so small that trees grow tall."""

profiles = st.sampled_from(SMALL)
contents = st.binary(max_size=700)


@given(profiles, contents, st.lists(st.integers(0, 60), max_size=30))
def test_how_bytes_are_handed_over_does_not_matter(profile, data, cuts):
    hasher, at = FileHasher(profile), 0
    for cut in cuts:
        hasher.update(memoryview(data)[at : at + cut])
        at += cut
    hasher.update(bytearray(data[at:]))
    assert hasher.finish() == name(data, profile)


def whole(blocks, cid):
    """Return a file and the bytes of its blocks, by the definition: a block and what it links."""
    block = blocks[cid]
    parsed = CID.parse(cid)
    parsed.check(block)
    if parsed.codec == 0x55:
        return block, len(block)
    entry = dagpb.decode(block, cid)
    assert entry.kind == dagpb.FILE
    assert not (entry.links and entry.content)
    content, total = entry.content, len(block)
    for link, size in zip(entry.links, entry.block_sizes, strict=True):
        part, below = whole(blocks, str(CID.from_bytes(link.cid)))
        assert (len(part), below) == (size, link.tsize)
        content, total = content + part, total + below
    assert len(content) == entry.size
    return content, total


@given(profiles, contents)
def test_blocks_are_the_file(profile, data):
    node = name(data, profile)
    tree = FileTree(node.size, node.leaves, profile)
    blocks = {str(CID.from_bytes(cid)): tree.block(level, index)
              for cid, level, index in tree.inner()}  # fmt: skip
    for index in range(tree.count):
        at, length = tree.span(index)
        block = tree.leaf(data[at : at + length])
        assert len(block) == tree.leaf_length(index)
        codec = 0x55 if profile.raw_leaves else 0x70
        leaf = CID(profile.version, codec, 0x12, hashlib.sha256(block).digest())
        blocks[str(leaf)] = block
    assert whole(blocks, node.cid) == (data, node.tsize)
    assert node.size == len(data)


@given(profiles, contents)
def test_a_tree_is_made_from_its_leaves(profile, data):
    node = name(data, profile)
    assert node_of_leaves(node.size, node.leaves, profile) == node
    assert FileTree(node.size, node.leaves, profile).node == node
    for start in range(0, len(data), 16):
        if profile.raw_leaves:
            leaf = node.leaves[start * 2 : start * 2 + 32]
            assert leaf == hashlib.sha256(data[start : start + 16]).digest()


@pytest.mark.parametrize("profile", PROFILES)
def test_lengths_of_leaves(profile):
    data = random.Random(0).randbytes(2 * PROFILES[profile].chunk + 5)
    node = name(data, profile)
    tree = FileTree(node.size, node.leaves, profile)
    assert tree.count == 3
    assert tree.height == 1
    for index in range(3):
        span = tree.span(index)
        block = tree.leaf(data[span.offset : span.offset + span.length])
        assert tree.leaf_length(index) == len(block)


def test_digests_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"64 bytes of digests for 5 bytes of file .* expected 32"):
        FileTree(5, bytes(64))
    with pytest.raises(DataError, match="31 bytes of digests"):
        FileTree(0, bytes(31))
    with pytest.raises(DataError, match="bytes of digests"):
        FileTree(-1, bytes(32))


def test_a_profile_must_be_known():
    message = (
        "unknown CID profile 'unixfs-v1-2024' (did you mean 'unixfs-v1-2025'?); known are "
        "unixfs-v1-2025, legacy-256k, unixfs-v0-2015"
    )
    with pytest.raises(UsageError) as found:
        FileHasher("unixfs-v1-2024")
    assert str(found.value) == message
    assert get_profile(PROFILES["legacy-256k"]).width == 174


def test_a_node_needs_no_leaves():
    assert Node("bafkqaaa", 0, 0).leaves == b""
