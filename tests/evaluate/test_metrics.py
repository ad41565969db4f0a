import warnings

import numpy as np
import pytest
from datacomp.evaluate.metrics import (
    bootstrap,
    mean_per_class_recall,
    mean_per_class_recall_uncertainty,
    mean_recall_uncertainty,
    ranks,
    recall_at,
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
    found = mean_per_class_recall_uncertainty(labels, predictions)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.1)
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)


def test_bootstrap_is_seeded():
    counts = np.array([3, 5, 9])
    first, again, other = (bootstrap(counts, lambda c: c[:, 0] / 17, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_bootstrap_in_blocks_draws_the_same(monkeypatch):
    from datacomp.evaluate import metrics

    counts = np.ones(50, np.int64)
    whole = bootstrap(counts, lambda c: c[:, :10].sum(axis=1) / 50)
    monkeypatch.setattr(metrics, "_BLOCK", 50 * 7)
    assert bootstrap(counts, lambda c: c[:, :10].sum(axis=1) / 50) == whole


def test_mean_recall_uncertainty_of_perfect_retrieval_is_a_point():
    found = mean_recall_uncertainty(np.ones(5), np.full(5, 2.0), np.full(5, 2.0))
    assert found.interval == (1.0, 1.0)


def test_mean_recall_uncertainty_covers_the_value():
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)
    found = mean_recall_uncertainty(hits, hits, np.ones(400))
    assert found.interval[0] < hits.mean() < found.interval[1]
    assert found.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.15)
