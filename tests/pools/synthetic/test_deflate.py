"""Own deflate: what zlib reads back is what went in, and the bytes never change."""

import hashlib
import zlib

import numpy as np
import pytest
from datacomp.pools.synthetic.deflate import deflate
from hypothesis import example, given, settings
from hypothesis import strategies as st

RUNS = st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 400)), max_size=30)


def inflated(data):
    reader = zlib.decompressobj(-15)
    found = reader.decompress(data.tobytes())
    assert reader.eof
    assert not reader.unused_data
    return found


@settings(deadline=None)
@given(RUNS)
@example([])
@example([(b"\xff", 1)])
@example([(b"\0", 3), (b"\1", 258), (b"\0", 259)])
def test_what_goes_in_comes_out(runs):
    raw = b"".join(piece * times for piece, times in runs)
    assert inflated(deflate(np.frombuffer(raw, np.uint8).copy())) == raw


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 257, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("levels", [1, 2, 256])
def test_lengths_and_noise(length, levels):
    raw = np.random.default_rng(length).integers(0, levels, length, np.uint8)
    packed = deflate(raw)
    assert inflated(packed) == raw.tobytes()
    assert len(packed) <= length * 1.01 + 300


def test_far_repetitions_and_no_farther():
    block = np.random.default_rng(0).integers(0, 256, 300, np.uint8)
    for gap in (32768 - 300, 32768, 40000):
        raw = np.concatenate([block, np.tile(np.arange(200, dtype=np.uint8), 201)[:gap], block])
        assert inflated(deflate(raw)) == raw.tobytes()


def test_codes_that_would_be_too_long():
    """Frequencies of Fibonacci give the deepest of all trees, deeper than 15."""
    counts = [1, 1]
    while len(counts) < 22:
        counts.append(counts[-1] + counts[-2])
    raw = np.repeat(np.arange(22, dtype=np.uint8), counts)
    raw = np.random.default_rng(1).permutation(raw)
    assert inflated(deflate(raw)) == raw.tobytes()


def test_bytes_never_change():
    noise = np.random.default_rng(7).integers(0, 40, (64, 65), np.uint8)
    noise[noise > 5] = 0
    packed = [deflate(noise.reshape(-1)).tobytes() for _ in range(3)]
    assert len(set(packed)) == 1
    assert (
        hashlib.sha256(packed[0]).hexdigest()
        == "458eeac75814cc835e80b9132a3519fbf2d88be256e19d4173b2371a6d269b85"
    )
