from collections import Counter

import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.draws.cluster_sampling import powers_of
from datacomp.pools.uids import to_hex


def test_an_empty_cluster_is_worth_nothing():
    assert powers_of(np.array([4, 0, 9]), 0.5).tolist() == [2, 0, 3]
    assert powers_of(np.array([4, 0, 9]), 0).tolist() == [1, 0, 1]


ROWS = np.concatenate([np.repeat(np.eye(4)[:2], [90, 10], axis=0), np.zeros((1, 4))])


@pytest.mark.parametrize(("alpha", "share"), [(1, 0.9), (0, 0.5), (0.5, 0.75)])
def test_clusters_are_drawn_by_a_power_of_their_size(features_of, alpha, share):
    """Of clusters of 90 and 10: 9 : 1 as they are, 1 : 1, and their roots are 3 : 1."""
    spec = parse(f"cluster_sampling:clusters=2,alpha={alpha},size=2000,most=2000")
    seen = {}
    for order in (None, np.arange(101)[::-1]):
        found = run_filters(features_of(2, order=order, l14_img=ROWS), [spec])
        assert found.steps[0].reasons["no_features"] == 1
        assert found.steps[0].seen == len(found.uids) == 2000
        seen[order is None] = Counter(int(uid, 16) for uid in to_hex(found.uids))
    assert seen[True] == seen[False]
    large = sum(n for uid, n in seen[True].items() if uid < 90)
    assert abs(large - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_what_is_drawn_too_often_drops_out(features_of):
    """Ten samples of a cluster of their own are drawn about 100 times each, 90 others 11 times."""
    pool = features_of(l14_img=ROWS)
    found = run_filters(pool, [parse("cluster_sampling:clusters=2,alpha=0,size=2000,most=40")])
    assert found.steps[0].reasons == {"no_features": 1, "drawn_too_often": 10}
    assert found.kept == 90


def test_wrong_parameters():
    for wrong in ({"alpha": -1}, {"size": 0}, {"most": 0}):
        with pytest.raises(UsageError, match=r"^filter cluster_sampling: parameter "):
            registry.create("cluster_sampling", wrong)
