import json

import pytest
from datacomp.filters import FilterSpec, run_filters, speeds
from datacomp.filters.language import LanguageScorer
from datacomp.filters.plan import explain

NAME = "datacomp.filters.language.LanguageScorer"


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datacomp" / "speeds.json"


def test_what_a_scorer_took_is_remembered_by_its_class(kept):
    scorer = LanguageScorer()
    assert speeds.estimate(scorer, 10) is None
    speeds.remember(scorer, 999, 50.0)
    speeds.remember(scorer, 5000, 0.9)
    assert not kept.exists()
    speeds.remember(scorer, 1000, 2.0)
    assert json.loads(kept.read_bytes()) == {NAME: 0.002}
    assert speeds.estimate(scorer, 10) == pytest.approx(0.02)
    speeds.remember(scorer, 1000, 4.0)
    assert speeds.estimate(scorer, 10) == pytest.approx(0.04)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", f'{{"{NAME}": "fast"}}', f'{{"{NAME}": -1.0}}', f'{{"{NAME}": NaN}}',
             " " * (1 << 17)],
)  # fmt: skip
def test_what_is_no_list_of_speeds_counts_as_none(kept, text):
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert speeds.estimate(LanguageScorer(), 10) is None
    speeds.remember(LanguageScorer(), 1000, 2.0)
    assert json.loads(kept.read_bytes()) == {NAME: 0.002}


def test_the_list_does_not_grow_for_ever(kept):
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({f"scorer {n}": 1.0 for n in range(200)}))
    speeds.remember(LanguageScorer(), 1000, 2.0)
    assert json.loads(kept.read_bytes()) == {NAME: 0.002}


def test_a_cache_that_cannot_be_written_is_no_loss(kept):
    kept.parent.parent.mkdir(parents=True)
    kept.parent.write_text("a file where the folder should be")
    speeds.remember(LanguageScorer(), 1000, 2.0)
    assert speeds.estimate(LanguageScorer(), 10) is None


def test_one_pool_tells_another(pool_of, monkeypatch):
    monkeypatch.setattr(speeds, "_ENOUGH_ROWS", 1)
    monkeypatch.setattr(speeds, "_ENOUGH_SECONDS", 0)
    spec = FilterSpec("language")
    run_filters(pool_of("one", text=["a dog", "ein Hund"]), [spec])
    (plan,) = explain(pool_of("other", text=["a cat"] * 4), [spec]).filters
    (scorer,) = plan.scorers
    assert (scorer.samples, scorer.scored) == (4, 0)
    assert scorer.seconds is not None
    assert 0 < scorer.seconds < 60
