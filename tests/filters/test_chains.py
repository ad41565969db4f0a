"""Groups of chains over partitions are the connected components."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from datacomp.filters.chains import VERTEX, Chains
from datacomp.filters.groups import Groups
from datacomp.filters.together import Place
from datacomp.pools.engine import Local
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass(frozen=True)
class Given(Chains):
    """Pairs of samples of numbers; way n has those of the nth list, partition is number % count."""

    pairs_of: tuple[tuple[tuple[int, int], ...], ...]

    def pairs(self, folder, count, way):
        pairs = np.array(self.pairs_of[way], np.int64).reshape(-1, 2)
        numbers = np.unique(pairs)
        vertices = np.zeros(len(numbers), VERTEX)
        vertices["f1"], vertices["part"] = numbers, numbers % count
        groups = Groups(len(numbers))
        groups.join(np.searchsorted(numbers, pairs[:, 0]), np.searchsorted(numbers, pairs[:, 1]))
        return vertices, groups


def not_first(pairs_of):
    count = len(pairs_of)
    with tempfile.TemporaryDirectory() as home:
        joint, place = Given(pairs_of), Place(0, count, Path(home))
        joint.settle(place.folder(joint), [None] * count, Local(1))
        return sorted(
            int(uid)
            for number in range(count)
            for uid in joint.not_first(Place(number, count, Path(home)))["f1"]
        )


def by_definition(pairs_of):
    every = [pair for pairs in pairs_of for pair in pairs]
    group = {number: number for pair in every for number in pair}
    for a, b in every:
        low, high = sorted((group[a], group[b]))
        group = {n: low if g == high else g for n, g in group.items()}
    return sorted(number for number, first in group.items() if number != first)


PAIR = st.tuples(st.integers(0, 30), st.integers(0, 30))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(PAIR, max_size=12).map(tuple), min_size=1, max_size=4).map(tuple))
def test_they_are_the_connected_components(pairs_of):
    assert not_first(pairs_of) == by_definition(pairs_of)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_chain_takes_few_rounds(seed, monkeypatch):
    order = np.random.default_rng(seed).permutation(3000).tolist()
    chain = list(zip(order[1:], order[:-1], strict=True))
    monkeypatch.setattr("datacomp.filters.chains._MOST_ROUNDS", 12)
    assert not_first((tuple(chain[::3]), tuple(chain[1::3]), tuple(chain[2::3]))) == [
        *range(1, 3000)
    ]
