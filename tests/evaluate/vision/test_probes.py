import numpy as np
import pytest
from datacomp.evaluate.vision import probes
from datacomp.evaluate.vision.probes import TEMPERATURE, knn_votes, linear_scores
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits


def unit(rows):
    rows = np.array(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_votes_by_hand():
    features = unit([[1, 0], [1, 1], [0, 1]])
    votes = knn_votes(features, np.array([0, 1, 1]), 2)
    near, far = np.exp(np.sqrt(0.5) / TEMPERATURE), np.exp(0.0)
    assert votes == pytest.approx(np.array([[0, near + far], [near, near], [far, near]]), rel=1e-4)


def test_no_image_votes_for_itself():
    """Each image's own class is only found among the others."""
    features = unit([[1, 0], [1, 0.01], [0, 1], [0.01, 1]])
    votes = knn_votes(features, np.array([0, 1, 2, 3]), 4)
    assert (votes[np.arange(4), np.arange(4)] == 0).all()
    assert votes.argmax(axis=1).tolist() == [1, 0, 3, 2]


def test_votes_do_not_depend_on_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = unit(rng.normal(size=(60, 8))), rng.integers(0, 5, 60)
    whole = knn_votes(features, labels, 5)
    monkeypatch.setattr("datacomp.evaluate.vision.probes.BLOCK", 60 * 7)
    assert knn_votes(features, labels, 5) == pytest.approx(whole, rel=1e-5)


def test_a_probe_learns_what_a_line_can_tell():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = unit(rng.normal(size=(120, 6)) + 4 * np.eye(6)[labels])
    scores = linear_scores(features, labels, 4)
    assert (scores.argmax(axis=1) == labels).mean() > 0.95
    assert (scores[:, 3] == -np.inf).all()


def test_a_probe_learns_nothing_from_noise():
    """Every image is predicted by a model that has not seen it."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    scores = linear_scores(unit(rng.normal(size=(200, 50))), labels, 2)
    assert abs((scores.argmax(axis=1) == labels).mean() - 0.5) < 0.12


def test_one_class_alone_is_always_right():
    labels = np.full(10, 2)
    scores = linear_scores(unit(np.random.default_rng(0).normal(size=(10, 4))), labels, 3)
    assert (scores.argmax(axis=1) == 2).all()


def test_logits_are_the_same_on_any_number_of_processors(monkeypatch):
    """Sums of several threads depend on their number, so each fit has one; fits go side by side."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 20, 300)
    features = unit(rng.normal(size=(300, 64)) + 2 * rng.normal(size=(20, 64))[labels])
    monkeypatch.setattr(probes, "SHARED", 0)
    threads, fit = [], LogisticRegression.fit

    def watched(*arguments):
        threads.extend(library["num_threads"] for library in threadpool_info())
        return fit(*arguments)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    found = []
    for processors in (1, 2):
        monkeypatch.setattr(probes, "default_workers", lambda n=processors: n)
        with threadpool_limits(processors):
            found.append(linear_scores(features, labels, 20).tobytes())
    assert found[0] == found[1]
    assert set(threads) == {1}
