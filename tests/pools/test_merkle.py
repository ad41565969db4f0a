"""Proofs of parts of a file: complete for what is right, worthless for anything else."""

import hashlib
import random

import pytest
from datacomp.pools.merkle import (
    BLOCK,
    beside,
    blocks_in,
    fold,
    leaves_of,
    root_of_blocks,
    width_of,
)
from hypothesis import given
from hypothesis import strategies as st


def levels_of(leaves):
    """Return all levels of a tree, computed as BEP 52 says: padded to a power of two first."""
    levels = [leaves + [bytes(32)] * (width_of(len(leaves)) - len(leaves))]
    while len(levels[-1]) > 1:
        below = iter(levels[-1])
        levels.append([hashlib.sha256(a + b).digest() for a, b in zip(below, below, strict=True)])
    return levels


@given(st.data())
def test_any_blocks_are_proved_and_no_others(data):
    count = data.draw(st.integers(1, 40))
    leaves = [hashlib.sha256(b"%d" % number).digest() for number in range(count)]
    first = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(first + 1, count))
    levels = levels_of(leaves)
    proof = [levels[level][number] for level, number in beside(first, end, count)]
    assert len(proof) <= 2 * 6
    root = root_of_blocks(leaves[first:end], first, count, proof)
    assert root == levels[-1][0] == fold(leaves, width_of(count))
    wrong = list(leaves[first:end])
    wrong[data.draw(st.integers(0, len(wrong) - 1))] = bytes(32)
    assert root_of_blocks(wrong, first, count, proof) != root
    assert root_of_blocks(leaves[first:end], first, count, [*proof, bytes(32)]) is None
    if proof:
        altered = data.draw(st.integers(0, len(proof) - 1))
        other = [bytes(32) if n == altered else one for n, one in enumerate(proof)]
        if other != proof:
            assert root_of_blocks(leaves[first:end], first, count, other) != root
        assert root_of_blocks(leaves[first:end], first, count, proof[1:]) is None


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_blocks_of_bytes(size):
    data = random.Random(size).randbytes(size)
    leaves = leaves_of(memoryview(data))
    assert len(leaves) == blocks_in(size)
    assert root_of_blocks(leaves, 0, len(leaves), []) == fold(leaves, width_of(len(leaves)))
    assert root_of_blocks([], 0, len(leaves), []) is None
    assert root_of_blocks([*leaves, bytes(32)], 0, len(leaves), []) is None
