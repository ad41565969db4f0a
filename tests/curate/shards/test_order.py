"""The order of a build's samples: that of the tars, or shuffled by a seed."""

import hashlib
import json
from collections import Counter

import numpy as np
from datacomp.curate.shards.build import build_shards
from datacomp.curate.shards.order import order_samples
from datacomp.pools import uids
from hypothesis import given
from hypothesis import strategies as st

ALL = tuple(range(21))


def test_a_seed_shuffles_and_another_seed_otherwise(shards, select, tmp_path, make):
    orders = {}
    for seed in (None, 0, 1):
        folder = tmp_path / f"{seed}"
        build_shards(shards, select(*ALL, 2), folder, shard_size=10, workers=1, shuffle=seed)
        orders[seed] = make.keys(folder)
    numbers = [shard * 7 + (3 * i) % 7 for shard in range(3) for i in range(7)]
    assert list(dict.fromkeys(key[:32] for key in orders[None])) == list(map(make.uid_of, numbers))
    assert len({tuple(order) for order in orders.values()}) == 3
    assert {frozenset(Counter(order).items()) for order in orders.values()} == {
        frozenset(Counter(orders[None]).items())
    }
    assert [json.loads((tmp_path / s / "meta.json").read_text())["shuffle"] for s in "01"] == [
        "0", "1",
    ]  # fmt: skip


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(0, 2**63 - 1))
def test_a_shuffled_order_is_a_permutation_that_ignores_what_else_is_there(counts, seed):
    array = uids.from_hex([hashlib.sha256(b"%d" % n).hexdigest()[:32] for n in range(len(counts))])
    order, copy = order_samples(array, np.array(counts), seed)
    expected = [(n, j) for n, count in enumerate(counts) for j in range(count)]
    found = list(zip(order.tolist(), copy.tolist(), strict=True))
    assert sorted(found) == expected
    fewer, copies = order_samples(array, np.array([*counts[:-1], 0]), seed)
    assert list(zip(fewer.tolist(), copies.tolist(), strict=True)) == [
        pair for pair in found if pair[0] != len(counts) - 1
    ]


def test_the_shuffled_order_is_the_same_for_ever():
    array = uids.from_hex([f"{n:032x}" for n in range(8)])
    order, _ = order_samples(array, np.ones(8, np.int64), 0)
    assert order.tolist() == [0, 6, 2, 1, 3, 4, 7, 5]
