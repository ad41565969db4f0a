from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.draws.soft_cap import SoftCapScorer
from datacomp.pools.uids import to_hex

SCORES = [0.0, 1.0, 2.0, -50.0, None, float("nan")]


def run(pool, text):
    found = run_filters(pool, [parse(text)])
    return Counter(int(uid, 16) for uid in to_hex(found.uids)), found


def pool_with(pool_of, scores, name="pool"):
    return pool_of(name, quality=pa.array(scores, pa.float64()))


def test_the_subset_names_samples_as_often_as_they_are_drawn(pool_of):
    pool = pool_with(pool_of, SCORES)
    seen, found = run(pool, "soft_cap:column=quality,size=1000,batch=1,penalty=0")
    assert sum(seen.values()) == len(found.uids) == 1000
    assert found.steps[0].seen == 1000
    assert found.kept == 3
    assert found.steps[0].reasons == {"no_score": 2, "not_drawn": 1}
    # Without a penalty draws are independent: e^0 : e^1 : e^2.
    for uid, share in enumerate(np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()):
        assert abs(seen[uid] - 1000 * share) < 4 * (1000 * share * (1 - share)) ** 0.5
    assert run(pool, "soft_cap:column=quality,size=1000,batch=1,penalty=0")[0] == seen
    assert run(pool, "soft_cap:column=quality,size=1000,batch=1,penalty=0,seed=1")[0] != seen


def test_what_a_chain_leaves_is_drawn(pool_of):
    pool = pool_with(pool_of, SCORES)
    spec = parse("soft_cap:column=quality,size=1000,batch=1,penalty=0")
    found = run_filters(pool, [parse("random_subset:fraction=0.5"), spec], "then")
    assert found.steps[1].seen == len(found.uids) == 1000
    assert 0 < found.kept < 3


def test_with_a_high_penalty_all_are_drawn_alike(pool_of):
    """After each draw a sample falls behind all others, so counts differ by one at most."""
    pool = pool_with(pool_of, [0.0, 1.0, 2.0, 0.5])
    seen, _ = run(pool, "soft_cap:column=quality,size=42,batch=1,penalty=1000")
    assert sorted(seen.values()) == [10, 10, 11, 11]


def test_a_batch_repeats_nothing(pool_of):
    pool = pool_with(pool_of, [0.0, 0.0, 90.0])
    assert run(pool, "soft_cap:column=quality,size=6,batch=3,penalty=0")[0] == {0: 2, 1: 2, 2: 2}
    # A batch is no larger than the pool, and the last one makes up the number.
    assert sum(run(pool, "soft_cap:column=quality,size=7,batch=50")[0].values()) == 7


def authors(scores, penalty, size, batch, seed):
    """The loop that the authors publish, with numpy's draws."""
    rng, left = np.random.default_rng(seed), np.array(scores, float)
    seen = np.zeros(len(scores))
    while seen.sum() < size:
        chances = np.exp(left - left.max())
        some = rng.choice(len(left), batch, p=chances / chances.sum(), replace=False)
        seen[some] += 1
        left[some] -= penalty
    return seen


def test_it_follows_the_authors_law(pool_of, set_scores):
    """The mean of 30 seeds of each agrees within its error."""
    scores = [0.0, 0.5, 1.0, 2.0, 3.0, -1.0, 0.2, 2.5]
    pool = pool_with(pool_of, scores)
    ours = np.array([set_scores(pool, SoftCapScorer("quality", 60, 0.15, 2, n)) for n in range(30)])
    theirs = np.array([authors(scores, 0.15, 60, 2, n) for n in range(30)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 30) + 0.05
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()


def test_the_usual_size_is_that_of_the_pool(pool_of):
    assert sum(run(pool_with(pool_of, SCORES), "soft_cap:column=quality")[0].values()) == 4


def test_what_is_wrong(pool_of):
    with pytest.raises(UsageError, match="parameter column is required"):
        registry.create("soft_cap", {})
    pool = pool_with(pool_of, SCORES)
    with pytest.raises(MissingError, match="the pool has no column 'qualty'"):
        run(pool, "soft_cap:column=qualty")
    with pytest.raises((DataError, UsageError), match="soft_cap"):
        run(pool, "soft_cap:column=url")
