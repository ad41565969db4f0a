import warnings

import numpy as np
import pytest
from datacomp.evaluate.metrics import (
    bootstrap,
    macro_f1,
    macro_f1_uncertainty,
    mean_per_class_recall,
    mean_per_class_recall_uncertainty,
    mean_recall_uncertainty,
    mean_uncertainty,
    pack,
    ranks,
    recall_at,
    share_uncertainty,
    unpack,
    wilson,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

labelled = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(0, 7)),
        hnp.arrays(np.int64, n, elements=st.integers(0, 7)),
    )
)


@settings(deadline=None)  # the first example imports sklearn
@given(labelled)
def test_mean_per_class_recall_is_sklearns_balanced_accuracy(pair):
    from sklearn.metrics import balanced_accuracy_score

    labels, predictions = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns of predicted classes that are absent
        expected = balanced_accuracy_score(labels, predictions)
    assert mean_per_class_recall(labels, predictions) == pytest.approx(expected, abs=1e-12)


def test_mean_per_class_recall_by_hand():
    # class 0: 1 of 2, class 2: 1 of 1, class 5: 0 of 1; classes 1, 3, 4 are absent
    labels, predictions = np.array([0, 0, 2, 5]), np.array([0, 2, 2, 0])
    assert mean_per_class_recall(labels, predictions) == (0.5 + 1 + 0) / 3


def test_ranks_by_hand():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]], np.float32)
    assert ranks(scores, np.array([2, 0])).tolist() == [1, 0]


def test_equal_scores_rank_by_index():
    scores = np.zeros((3, 3), np.float32)
    assert ranks(scores, np.array([0, 1, 2])).tolist() == [0, 1, 2]


@given(
    hnp.arrays(np.int8, (7, 9), elements=st.integers(0, 3)),
    hnp.arrays(np.int64, 7, elements=st.integers(0, 8)),
)
def test_ranks_are_positions_in_a_stable_sort(scores, right):
    order = np.argsort(-scores.astype(int), axis=1, kind="stable")
    expected = [
        int(np.flatnonzero(row == column)[0]) for row, column in zip(order, right, strict=True)
    ]
    assert ranks(scores, right).tolist() == expected
    assert ((ranks(scores, right) == 0) == (scores.argmax(axis=1) == right)).all()


def test_recall_at():
    rank = np.array([0, 4, 5, 20])
    assert [recall_at(rank, k) for k in (1, 5, 10)] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.277533), (5, 10, 0.236593, 0.763407), (10, 10, 0.722467, 1.0)],
)
def test_wilson_matches_published_values(hits, n, low, high):
    assert wilson(hits, n).interval == pytest.approx((low, high), abs=1e-6)


def test_wilson_has_width_where_everything_is_right():
    assert wilson(10, 10).standard_error > 0.05


def test_bootstrap_agrees_with_drawing_samples_one_by_one():
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    predictions[:150] = labels[:150]
    drawn = []
    for _ in range(2000):
        chosen = rng.integers(0, 300, 300)
        drawn.append(mean_per_class_recall(labels[chosen], predictions[chosen]))
    found = mean_per_class_recall_uncertainty(labels, predictions, 0)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.1)
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)


def share(counts: np.ndarray) -> np.ndarray:
    return counts[:, 0] / counts.sum(axis=1)


def test_bootstrap_is_seeded():
    cells = np.repeat([0, 1, 2], [3, 5, 9])
    first, again, other = (bootstrap(cells, 3, share, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_bootstrap_in_blocks_draws_the_same(monkeypatch):
    from datacomp.evaluate import metrics

    cells = np.arange(50) % 7
    whole = bootstrap(cells, 7, share, 0)
    monkeypatch.setattr(metrics, "_BLOCK", 7 * 7)
    assert bootstrap(cells, 7, share, 0) == whole


def test_one_seed_draws_the_same_samples_for_every_model():
    """So the replicates of a difference are the differences of the replicates."""
    rng = np.random.default_rng(4)
    a, b = rng.random(200) < 0.5, rng.random(200) < 0.6
    both = bootstrap(a * 2 + b, 4, lambda counts: (counts[:, 1] - counts[:, 2]) / 200, 9)
    one, two = (np.array(share_uncertainty(hits, 9).replicates) for hits in (a, b))
    assert np.allclose(two - one, both.replicates, atol=1e-12)


def test_a_share_has_wilsons_interval_and_replicates():
    hits = np.arange(40) < 30
    found = share_uncertainty(hits, 0)
    assert found.interval == wilson(30, 40).interval
    assert np.std(found.replicates) == pytest.approx(np.sqrt(0.75 * 0.25 / 40), rel=0.1)


def test_replicates_survive_being_written():
    found = share_uncertainty(np.arange(40) < 30, 0)
    assert unpack(pack(found.replicates)) == pytest.approx(found.replicates, abs=1e-7)
    for broken in ("", "AAAA", "!", pack((0.5,)), pack((float("nan"),) * 1000)):
        with pytest.raises(ValueError, match=r".+"):
            unpack(broken)


@settings(deadline=None)
@given(labelled)
def test_macro_f1_is_sklearns(pair):
    from sklearn.metrics import f1_score

    labels, predictions = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = f1_score(labels, predictions, average="macro", labels=np.unique(labels))
    assert macro_f1(labels, predictions) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_uncertainty_agrees_with_drawing_samples_one_by_one():
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 4, 90), rng.integers(0, 5, 90)
    predictions[:60] = labels[:60]
    rng = np.random.default_rng(3)
    drawn = [rng.integers(0, 90, 90) for _ in range(1000)]
    expected = [macro_f1(labels[chosen], predictions[chosen]) for chosen in drawn]
    assert macro_f1_uncertainty(labels, predictions, 3).replicates == pytest.approx(expected)


def test_mean_uncertainty():
    values = np.array([0.0, 0.5, 1.0] * 40)
    found = mean_uncertainty(values, 0)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.standard_error == pytest.approx(values.std() / np.sqrt(120), rel=0.1)


def test_mean_recall_uncertainty_of_perfect_retrieval_is_a_point():
    found = mean_recall_uncertainty(np.ones(5), np.full(5, 2.0), np.full(5, 2.0), 0)
    assert found.interval == (1.0, 1.0)


def test_mean_recall_uncertainty_covers_the_value():
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)
    found = mean_recall_uncertainty(hits, hits, np.ones(400), 0)
    assert found.interval[0] < hits.mean() < found.interval[1]
    assert found.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.15)
