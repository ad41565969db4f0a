"""Streams: named ones are what they always were, Mersenne Twisters are Python's."""

import random

import numpy as np
from datacomp.pools.synthetic import draws, mersenne
from hypothesis import given, settings
from hypothesis import strategies as st

STREAMS = (11757334341822201562, 4521282689894453520)


def splitmix64(state):
    """The published algorithm, in Python's integers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return state, z ^ (z >> 31)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_bits_are_splitmix64(key):
    state = key
    for n in range(4):
        state, expected = splitmix64(state)
        assert int(draws.bits(np.uint64(key), n)) == expected


def test_streams_never_change():
    assert int(draws.stream(0, 0, draws.CLASS, 0)) == STREAMS[0]
    assert int(draws.stream(2**63 - 1, 20_999, 999, 2)) == STREAMS[1]


def test_streams_of_different_names_differ():
    names = [(s, c, i, p) for s in range(3) for c in range(5) for i in range(-1, 4)
             for p in range(3)]  # fmt: skip
    assert len({int(draws.stream(*name)) for name in names}) == len(names)


def test_named_draws_are_spread_evenly():
    stream = draws.NamedStream(0, 1, 2, 3)
    counts = np.bincount([stream.randint(5, 14) for _ in range(20_000)], minlength=15)
    assert counts[:5].sum() == 0
    assert (abs(counts[5:] - 2000) < 200).all()
    numbers = np.array([stream.uniform(2, 6) for _ in range(5_000)])
    assert 2 <= numbers.min() < 2.01
    assert 5.99 < numbers.max() < 6
    assert abs(np.mean([stream.expovariate(0.01) for _ in range(20_000)]) - 100) < 3


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(
        st.one_of(
            st.tuples(st.just("randint"), st.integers(-600, 600), st.integers(0, 1000)),
            st.tuples(st.just("uniform"), st.floats(-10, 10), st.floats(0, 10)),
            st.tuples(st.just("skip"), st.integers(0, 2000), st.just(0)),
            st.tuples(st.just("words"), st.integers(0, 2000), st.just(0)),
        ),
        max_size=12,
    ),
)
def test_mersenne_draws_what_python_draws(seed, calls):
    ours, python = mersenne.MersenneStream(seed), random.Random(seed)
    for name, low, more in calls:
        if name == "randint":
            assert ours.randint(low, low + more) == python.randint(low, low + more)
        elif name == "uniform":
            assert ours.uniform(low, low + more) == python.uniform(low, low + more)
        else:
            expected = [python.getrandbits(32) for _ in range(low)]
            if name == "skip":
                mersenne.skip(ours.state, low)
            else:
                found = np.empty(low, np.uint32)
                mersenne.words(ours.state, found, low)
                assert found.tolist() == expected
    assert ours.expovariate(0.01) == python.expovariate(0.01)
