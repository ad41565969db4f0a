"""ssl_prototypes, d4 and semdedup as filters: what stays of a pool of clusters."""

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.clusters.ssl_prototypes import PrototypeScorer
from datacomp.pools.uids import to_hex

# Two directions; of each one sample exactly there, one near and one farther. 6 has no features.
ROWS = np.float32([[1, 0, 0, 0], [24, 7, 0, 0], [24, -7, 0, 0],
                   [0, 0, 1, 0], [0, 0, 4, 3], [0, 0, 4, -3], [0, 0, 0, 0]])  # fmt: skip


def run(pool, text):
    found = run_filters(pool, [parse(text)])
    return [int(uid, 16) for uid in to_hex(found.uids)], found.steps[0].reasons


def test_the_score_is_the_cosine_with_the_centroid(features_of, set_scores):
    """By symmetry the centroids are the two directions; 24/25 and 4/5 are the cosines."""
    scorer = PrototypeScorer(features="l14_img", clusters=2, iterations=10, seed=0, device="cpu")
    for files in (1, 3):
        found = set_scores(features_of(files, l14_img=ROWS), scorer)
        assert found[:6] == pytest.approx([1, 0.96, 0.96, 1, 0.8, 0.8], abs=1e-6)
        assert found[6] is None


def test_the_least_typical_stay(features_of):
    pool = features_of(l14_img=ROWS)
    assert run(pool, "ssl_prototypes:clusters=2,fraction=0.5") == (
        [1, 4, 5], {"prototypical": 3, "no_features": 1}
    )  # fmt: skip
    assert run(pool, "ssl_prototypes:clusters=2,fraction=0.67")[0] == [1, 2, 4, 5]


def test_semdedup_by_epsilon_and_by_fraction(features_of):
    """Farthest first: 1, 2 (cosine .843 with 1), 0 (.96); and 4, 5 (.28), 3 (.8)."""
    pool = features_of(l14_img=ROWS)
    assert run(pool, "semdedup:clusters=2") == (
        [1, 2, 3, 4, 5], {"semantic_duplicate": 1, "no_features": 1}
    )  # fmt: skip
    assert run(pool, "semdedup:clusters=2,epsilon=0.17")[0] == [1, 3, 4, 5]
    assert run(pool, "semdedup:clusters=2,epsilon=0.5")[0] == [1, 4, 5]
    assert run(pool, "semdedup:clusters=2,fraction=0.5")[0] == [1, 4, 5]
    assert len(pool.info()["scores"]) == 1  # another epsilon needs no other score


def test_d4_is_both_one_after_the_other(features_of):
    rows = np.random.default_rng(4).standard_normal((80, 6)).astype(np.float32)
    pool = features_of(3, l14_img=rows)
    found, reasons = run(pool, "d4:clusters=5,dedup_fraction=0.75,fraction=0.5,seed=3")
    specs = ["semdedup:clusters=5,fraction=0.75,seed=3",
             "ssl_prototypes:clusters=5,fraction=0.5,seed=3"]  # fmt: skip
    joined = run_filters(pool, [parse(text) for text in specs], "then")
    assert found == [int(uid, 16) for uid in to_hex(joined.uids)]
    assert len(found) == 30
    assert reasons == {"semantic_duplicate": 20, "prototypical": 30}


def test_too_many_clusters(features_of):
    pool = features_of(l14_img=ROWS)
    for name in ("semdedup", "ssl_prototypes", "d4", "density"):
        with pytest.raises(DataError, match="7 clusters of 6 samples with features"):
            run(pool, f"{name}:clusters=7")


@pytest.mark.parametrize("name", ["ssl_prototypes", "d4", "density"])
def test_wrong_parameters(name):
    for wrong in ({"fraction": 0}, {"clusters": 0}, {"iterations": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match=rf"^filter {name}: parameter {next(iter(wrong))} "):
            registry.create(name, wrong)
