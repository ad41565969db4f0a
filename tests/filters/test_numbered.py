import itertools
import tracemalloc

import numpy as np
import pytest
from datacomp.filters.draws import numbered
from datacomp.filters.draws.numbered import Landing, Law, draws, part_of
from datacomp.pools.uids import from_halves


def drawn(worths, count, seed, first=0):
    return draws(np.array(worths, float), Law(seed, 4), first, count)


def test_draws_follow_the_worths(monkeypatch):
    found = drawn([1, 0, 3], 4000, 0)
    assert found.sum() == 4000
    assert found[1] == 0
    assert abs(found[0] - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5
    monkeypatch.setattr(numbered, "_AT_ONCE", 999)
    assert drawn([1, 0, 3], 4000, 0).tolist() == found.tolist()
    assert drawn([1, 0, 3], 4000, 1).tolist() != found.tolist()
    # Draws are numbered: those of some numbers are the same whatever others there are.
    parts = drawn([1, 0, 3], 1234, 0) + drawn([1, 0, 3], 4000, 0, 1234)
    assert parts.tolist() == found.tolist()
    assert drawn([4, 0], 50, 0).tolist() == [50, 0]


def test_all_draws_are_made_once():
    parts = [part_of(1001, n, 7) for n in range(7)]
    assert parts[0][0] == 0
    assert parts[-1][1] == 1001
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_of_a_group_samples_are_drawn_by_their_weights():
    """Of one group 1 : 2 : 5, of another 1 : 1; in any order of the samples."""
    groups, weights = np.array([3, 1, 3, 1, 3]), np.array([2, 2**60, 5, 2**60, 1])
    uids = from_halves(np.zeros(5, np.uint64), np.arange(5).astype(np.uint64))
    made = np.array([0, 10_000, 0, 10_000])
    expected = [10_000 * share for share in (2 / 8, 1 / 2, 5 / 8, 1 / 2, 1 / 8)]
    seen = []
    for order in (np.arange(5), np.array([4, 2, 0, 1, 3])):
        landing = Landing(groups[order], uids[order], weights[order])
        counts = np.empty(5)
        counts[order[landing.order]] = landing.count(made, Law(0, 4))
        seen.append(counts.tolist())
    assert seen[0] == seen[1]
    chi_square = sum((a - b) ** 2 / b for a, b in zip(seen[0], expected, strict=True))
    assert chi_square < 16.3  # of 3 degrees, at 0.001


@pytest.mark.parametrize("weight", [1, 7, 2**61])
def test_the_last_bits_land_within_the_group(weight):
    one = np.zeros(1, np.int64)
    uids = from_halves(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    landing = Landing(one, uids, one + weight)
    bits = np.array([0, 2**64 - 1], np.uint64)
    assert landing.places(np.zeros(2, np.int64), bits).tolist() == [0, 0]


def test_many_draws_take_no_more_memory_and_land_alike_in_pieces(monkeypatch):
    """Of 1.2 million draws, made in pieces, the 64 bits of all would be 9.6 MB."""
    uids = from_halves(np.zeros(60, np.uint64), np.arange(60).astype(np.uint64))
    landing = Landing(np.arange(60) % 3, uids, 1 + np.arange(60))
    law = Law(2, 4)
    whole = landing.count(draws(np.array([3, 1, 2]), law, 0, 1_200_000), law)
    assert whole.sum() == 1_200_000
    monkeypatch.setattr(numbered, "_AT_ONCE", 5000)
    tracemalloc.start()
    found = landing.count(draws(np.array([3, 1, 2]), law, 0, 1_200_000), law)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tolist() == whole.tolist()
    assert peak < 1_000_000
