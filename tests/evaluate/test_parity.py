"""Every metric agrees with what DataComp's own evaluation computed; see parity/make_vectors.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from datacomp.evaluate import faces, fairness, retrieval, wilds, winogavil
from datacomp.evaluate.classification import classified
from datacomp.evaluate.tasks import load_tasks

VECTORS = json.loads((Path(__file__).parent / "parity" / "vectors.json").read_text())
GROUPED = [key for key in VECTORS if key.startswith(("wilds/", "fairness/"))]
OURS = {
    "wilds/fmow": {"acc_worst_region_known"},
    "fairness/fairface": {"toxicity_crime_highest", "toxicity_nonhuman_highest"},
    "fairness/utkface": {"toxicity_crime_highest", "toxicity_nonhuman_highest"},
}
"""Corrected values that DataComp does not have."""


def measured(key: str):
    """Return what we make of the vectors' inputs: metrics and, but for faces, the outcome."""
    vector, task = VECTORS[key], load_tasks()[key]
    metadata = np.array(vector["metadata"], float)
    scores = np.array(vector["logits"], np.float32)
    if task.family == "faces":
        answers = {
            question: scores[:, place, :count].argmax(axis=1)
            for place, (question, count) in enumerate(vector["classes"].items())
        }
        return faces.summarise(answers, metadata, task.fields), None
    found = classified(scores, np.array(vector["labels"]), metadata)
    family = wilds if task.family == "wilds" else fairness
    outcome = family.summarise(found, task)
    return outcome.metrics, outcome


def agree(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == (value if value is None else pytest.approx(value, abs=1e-6)), name


@pytest.mark.parametrize("key", GROUPED)
def test_metrics_by_group(key):
    found = dict(measured(key)[0])
    assert {name for name in found if name not in VECTORS[key]["metrics"]} == OURS.get(key, set())
    for name in OURS.get(key, ()):
        del found[name]
    agree(found, VECTORS[key]["metrics"])


def test_counts_are_exact_and_empty_groups_have_no_accuracy():
    found = measured("wilds/camelyon17")[0]
    assert (found["count_slide:2"], found["acc_slide:2"]) == (0, None)
    assert sum(found[f"count_slide:{slide}"] for slide in range(5)) == 70


def test_fmows_worst_region_without_the_images_that_belong_to_none():
    found = measured("wilds/fmow")[0]
    assert (found["count_region:5"], found["acc_worst_region"]) == (2, 0.0)
    assert found["acc_worst_region_known"] == pytest.approx(16 / 24) == found["acc_region:0"]


def test_the_worst_of_an_offence_is_its_highest_rate():
    found = measured("fairness/fairface")[0]
    assert found["toxicity_crime_wg"] == 0.0
    assert found["toxicity_crime_highest"] == found["toxicity_crime_race:5"] == 7 / 20


@pytest.mark.parametrize("key", [k for k in GROUPED if load_tasks()[k].main_metric])
def test_the_main_metric_has_an_interval_around_it(key):
    metrics, outcome = measured(key)
    low, high = outcome.uncertainty.interval
    assert low <= metrics[load_tasks()[key].main_metric] <= high
    assert len(outcome.uncertainty.replicates) == 1000


def test_retrieval():
    vector = VECTORS["retrieval"]
    images, texts = (np.array(vector[name]) for name in ("images", "texts"))
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    owner = np.array(vector["owner"])
    found = retrieval.summarise(retrieval.rank_pairs(images, texts, owner), owner, 0)
    agree(found.metrics, vector["metrics"])


def test_winogavil():
    vector = VECTORS["misc/winogavil"]
    scores = []
    for one in vector["instances"]:
        cosines = np.array(one["candidate_images"], np.float32) @ np.array(one["cue"], np.float32)
        right = np.isin(one["candidates"], one["associations"])
        scores.append(winogavil.jaccard(winogavil.pick(cosines, right), right))
    sizes = np.array([len(one["candidates"]) for one in vector["instances"]])
    found = winogavil.summarise(np.array(scores), sizes, 0)
    agree(found.metrics, vector["metrics"])
    low, high = found.uncertainty.interval
    assert low < found.metrics["jaccard_score_10-12"] < high
