import hashlib

import pytest
from datacomp.filters import parse, run_filters
from datacomp.pools.uids import to_hex


def kept(pool, *filters, combine="and"):
    return to_hex(run_filters(pool, [parse(f) for f in filters], combine).uids)


@pytest.fixture
def pool(pool_of):
    return pool_of(text=[f"text {i}" for i in range(97)], width=list(range(97)))


@pytest.mark.parametrize("fraction", [1e-9, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_the_size_is_exact_and_the_draw_that_of_the_hash(pool, fraction):
    found = kept(pool, f"random_subset:fraction={fraction},seed=7")
    uids = [f"{i:032x}" for i in range(97)]
    by_hash = sorted(uids, key=lambda uid: hashlib.md5(f"{uid}/7".encode()).hexdigest())
    assert found == sorted(by_hash[: round(97 * fraction)])


def test_a_smaller_subset_is_part_of_a_larger_one_and_seeds_differ(pool):
    small, large = (kept(pool, f"random_subset:fraction={f}") for f in (0.2, 0.6))
    assert set(small) < set(large)
    assert set(kept(pool, "random_subset:fraction=0.6,seed=1")) != set(large)


def test_in_a_chain_the_fraction_is_of_what_is_left(pool):
    pool.sql("UPDATE samples SET height = 1")
    found = kept(pool, "image_size:min_side=0,max_aspect=40", "random_subset:fraction=0.5",
                 combine="then")  # fmt: skip
    assert len(found) == 20
    assert all(1 <= int(uid, 16) <= 40 for uid in found)
