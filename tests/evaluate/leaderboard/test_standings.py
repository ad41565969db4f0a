"""Ranks, ties, published rows, and what is concluded across scales."""

import math
import statistics

import numpy as np
import pytest
from datacomp.evaluate.leaderboard.scaling import (
    agreement,
    average_ranks,
    fit_power_law,
    spearman,
    task_correlation,
)
from datacomp.evaluate.leaderboard.standings import Row, ranked, reference_rows, ties
from datacomp.evaluate.leaderboard.store import add
from datacomp.evaluate.leaderboard.verdicts import Verdicts
from datacomp.evaluate.results import combine
from datacomp.evaluate.scales import SCALES
from datacomp.evaluate.tasks import load_suites
from hypothesis import given
from hypothesis import strategies as st


def row(name, *values, scale="small", replicates=None):
    return Row(name, name, "A", "filtering", scale, 10, {"Average": values[0]},
               combine(list(values)), replicates=replicates)  # fmt: skip


def test_the_published_rows():
    rows = {scale: reference_rows(scale) for scale in SCALES}
    assert {scale: len(found) for scale, found in rows.items()} == {
        "demo": 0, "debug": 0, "small": 7, "medium": 7, "large": 7, "xlarge": 4,
    }  # fmt: skip
    best = {scale: max(found, key=lambda r: r.average) for scale, found in rows.items() if found}
    assert {scale: (one.method, one.average) for scale, one in best.items()} == {
        "small": ("CLIP score (L/14 30%)", 0.173),
        "medium": ("CLIP score (L/14 30%)", 0.328),
        "large": ("Image-based ∩ CLIP score (L/14 30%)", 0.537),
        "xlarge": ("Image-based ∩ CLIP score (L/14 30%)", 0.663),
    }
    sizes = {one.method: one.size for one in rows["small"]}
    assert sizes["No filtering"] == SCALES["small"].samples_seen
    assert [r.method for found in rows.values() for r in found if r.note] == [
        "No filtering", "Basic filtering", "Image-based ∩ CLIP score (L/14 30%)",
        "Basic filtering", "Text-based", "Image-based",
    ]  # fmt: skip
    assert all(len(one.averages) == 5 + bool(one.tasks) for found in rows.values() for one in found)


def test_ties_by_published_noise():
    rows = [row("a", 0.200), row("b", 0.195), row("c", 0.190)]
    ordered, places = ranked(rows)
    assert [r.id for r in ordered] == ["a", "b", "c"]
    assert [place.rank for place in places] == [1, 1, 2]
    assert [place.ties for place in places] == [(1,), (0, 2), (1,)]


def test_without_a_known_spread_everything_ties_at_the_demo_scale():
    _, places = ranked([row("a", 0.9, scale="demo"), row("b", 0.1, scale="demo")])
    assert [place.rank for place in places] == [1, 1]


def test_seeds_tell_what_a_tie_is():
    apart = [row("a", 0.300, 0.301, 0.302), row("b", 0.295, 0.296, 0.294)]
    assert not ties(apart).any()
    wide = [row("a", 0.300, 0.320, 0.280), row("b", 0.295, 0.296, 0.294)]
    assert ties(wide)[0, 1]


def test_the_bootstrap_is_paired():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.02, 1000), rng.normal(0, 0.001, (2, 1000))
    a, b = 0.22 + shared + own[0], 0.20 + shared + own[1]
    assert not ties([row("a", 0.22, replicates=a), row("b", 0.20, replicates=b)])[0, 1]
    lonely = 0.20 + rng.normal(0, 0.02, 1000)
    assert ties([row("a", 0.22, replicates=a), row("b", 0.20, replicates=lonely)])[0, 1]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=30))
def test_ranks_never_rise_down_the_table(values):
    ordered, places = ranked([row(str(i), value) for i, value in enumerate(values)])
    ranks = [place.rank for place in places]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    assert [r.average for r in ordered] == sorted(values, reverse=True)
    for i, place in enumerate(places):
        assert all(i in places[j].ties for j in place.ties)


@pytest.mark.parametrize("scale", ["small", "medium", "large", "xlarge"])
def test_the_tasks_of_published_rows_give_their_averages(scale):
    suite = load_suites()["datacomp"]
    for one in reference_rows(scale):
        if not one.tasks:
            assert scale == "small"
            assert one.method in ("No filtering", "Image-based")
            continue
        assert tuple(one.tasks) == tuple(suite.groups["Average"])
        mean = statistics.fmean(score.value for score in one.tasks.values())
        # Where they differ by more than rounding, the row's note has the same other average.
        assert abs(mean - one.average) < 6e-4 or f"{mean:.3f}" in one.note
        assert one.tasks["imagenet1k"].value == pytest.approx(one.averages["ImageNet"], abs=6e-4)
        retrieval = statistics.fmean(one.tasks[key].value for key in suite.groups["Retrieval"])
        assert abs(retrieval - one.averages["Retrieval"]) < 2e-3 or f"{retrieval:.3f}" in one.note


def test_rows_of_submissions(submission, tmp_path):
    add(tmp_path / "board", submission(seeds=(0, 1, 2)))
    (tmp_path / "board" / "small" / "filtering" / "not-a-submission").mkdir()
    rows, refused = Verdicts(tmp_path / "board").load()
    (found,) = rows
    assert found.estimate.n == 3
    assert found.average == pytest.approx(found.averages["Average"], abs=1e-12)
    assert len(found.tasks) == 38
    assert all(score.interval[0] <= score.value <= score.interval[1]
               for score in found.tasks.values())  # fmt: skip
    assert [str(one) for one in refused["small/filtering/not-a-submission"].refused] == [
        f"[record] submission.json: {tmp_path}/board/small/filtering/not-a-submission/"
        "submission.json: no such file"
    ]


def test_a_submission_in_anothers_place_is_not_shown(submission, tmp_path):
    report, _ = add(tmp_path / "board", submission())
    place = tmp_path / "board" / "small" / "filtering" / report.id
    (tmp_path / "board" / "medium" / "byod").mkdir(parents=True)
    place.rename(tmp_path / "board" / "medium" / "byod" / report.id)
    rows, refused = Verdicts(tmp_path / "board").load()
    assert rows == []
    assert [one.rule for report in refused.values() for one in report.refused] == ["place"]


# -- across scales ---------------------------------------------------------------------------


def test_a_power_law_is_found_again():
    law = fit_power_law([(x, 1 - 5 * x**-0.1) for x in (1e16, 1e18, 1e20)])
    assert law.slope == pytest.approx(-0.1)
    assert law.score(1e22) == pytest.approx(1 - 5 * 1e22**-0.1)
    low, high = law.interval(1e22)
    assert high - low < 1e-6
    assert fit_power_law([(1e16, 0.1), (1e18, 0.2)]).interval(1e20) is None
    assert fit_power_law([(1e16, 0.1)]) is None
    assert fit_power_law([(1e16, 0.1), (1e18, 1.0)]) is None


def test_a_prediction_interval_covers():
    """Of new points drawn from the law, 95 % lie in the interval, give or take."""
    rng = np.random.default_rng(0)
    x = [1e17, 1e18, 1e19, 1e20]
    hits = 0
    for _ in range(400):
        noise = rng.normal(0, 0.02, 5)
        points = [
            (c, 1 - math.exp(2 - 0.08 * math.log(c) + n)) for c, n in zip(x, noise, strict=False)
        ]
        new = 1 - math.exp(2 - 0.08 * math.log(1e21) + noise[4])
        low, high = fit_power_law(points).interval(1e21)
        hits += low <= new <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_rank_correlation():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert average_ranks(np.array([5, 1, 5, 0])).tolist() == [3.5, 2, 3.5, 1]


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 40), rng.integers(0, 9, 40)
    assert spearman(a.tolist(), b.tolist()) == pytest.approx(stats.spearmanr(a, b).statistic)
    matrix = task_correlation(np.column_stack([a, b, np.ones(40)]).astype(float))
    assert matrix[0, 1] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(matrix[0, 2])


def test_agreement_of_the_papers_scales():
    """The paper's own rows: small and medium agree less than medium and large."""
    scores = {s: {r.method: r.average for r in reference_rows(s)} for s in ("small", "medium")}
    found = agreement("small", "medium", scores["small"], scores["medium"])
    assert found.methods == 7
    assert found.correlation == pytest.approx(0.81, abs=0.01)
    assert found.interval[0] < found.correlation <= found.interval[1]
    few = agreement("a", "b", dict.fromkeys("xyz", 0.1) | {"x": 0.2}, {"x": 1, "y": 2, "z": 3})
    assert few.interval is None
