"""Spans behave as the sets of bytes that they stand for."""

from datacomp.distribution.getting.spans import both, joined, size_of, without
from hypothesis import given
from hypothesis import strategies as st

pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def members(spans):
    return {number for start, end in spans for number in range(start, end)}


@given(pairs, pairs)
def test_they_are_sets(some, more):
    first, second = joined(some), joined(more)
    assert members(first) == members(some)
    assert size_of(first) == len(members(first))
    for found, expected in (
        (both(first, second), members(first) & members(second)),
        (without(first, second), members(first) - members(second)),
    ):
        assert members(found) == expected
        assert joined(found) == found, "sorted, apart and none empty"
