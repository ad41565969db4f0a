import json
from pathlib import Path

import pytest
from datacomp.evaluate.results import Estimate, Result, combine, read_results
from datacomp.evaluate.seeds import combine_seeds, run_name
from datacomp.evaluate.tasks import load_suites

DEMO = load_suites()["demo"]


@pytest.fixture
def make(tmp_path):
    """Return a maker of runs with the same score on every demo task."""

    def make(name, score, fingerprint="f", keys=DEMO.groups["Average"], **more):
        run = tmp_path / name
        run.mkdir()
        info = {"scale": {"name": "demo"}, "data": [{"fingerprint": fingerprint}], **more}
        (run / "info.json").write_text(json.dumps(info))
        lines = [
            json.dumps(Result(key, key, {"main_metric": score}).to_dict()) + "\n" for key in keys
        ]
        (run / "eval_results.jsonl").write_text("".join(lines))
        return str(run)

    return make


def read(*runs):
    return {run: read_results(Path(run)) for run in runs}


def test_runs_of_one_recipe_and_dataset_are_seeds(make):
    found = read(
        make("clip-seed0", 0.4), make("other", 0.3, "g"), make("clip-seed1", 0.6, seed=1),
    )  # fmt: skip
    clip, other = combine_seeds(found, [DEMO])
    assert (clip.name, len(clip.runs), other.name) == ("clip", 2, "other")
    assert clip.tasks["demo/digits"] == combine([0.4, 0.6])
    assert clip.groups["demo", "Average"] == combine([0.4, 0.6])
    assert other.groups["demo", "Average"] == Estimate(pytest.approx(0.3), None, 1, None)


def test_another_recipe_is_no_seed(make):
    found = read(make("a", 0.4), make("b", 0.6, scale={"name": "small"}))
    assert [seeds.name for seeds in combine_seeds(found, [DEMO])] == ["a", "b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [({"objective": "dfn"}, {}), ({"objective": "dfn"}, {"objective": "clip"}),
     ({"objective": "dfn", "init": {"weights_sha256": "a"}},
      {"objective": "dfn", "init": {"weights_sha256": "b"}}),
     ({"objective": "dfn", "init": None}, {"objective": "dfn", "init": {"weights_sha256": "b"}})],
)  # fmt: skip
def test_other_objectives_and_first_weights_are_no_seeds(make, one, other):
    found = read(make("a", 0.4, **one), make("b", 0.6, **other))
    assert [seeds.name for seeds in combine_seeds(found, [DEMO])] == ["a", "b"]


def test_runs_that_do_not_tell_their_objective_are_of_the_benchmark(make):
    found = read(make("a0", 0.4), make("a1", 0.6, objective="clip", init=None))
    assert [seeds.name for seeds in combine_seeds(found, [DEMO])] == ["a"]


def test_results_without_a_run_stand_for_themselves(make):
    runs = [make("a", 0.4), make("b", 0.6)]
    for run in runs:
        (Path(run) / "info.json").unlink()
    assert [seeds.runs for seeds in combine_seeds(read(*runs), [DEMO])] == [(r,) for r in runs]


def test_averages_over_different_tasks_are_no_seeds_of_one_number(make):
    less = DEMO.groups["Average"][:-1]
    found = read(make("a0", 0.4), make("a1", 0.6, keys=less))
    (both,) = combine_seeds(found, [DEMO], partial=True)
    assert both.groups["demo", "Average"] is None
    assert both.tasks[DEMO.groups["Average"][-1]].n == 1
    found = read(make("b0", 0.4, "g", keys=less), make("b1", 0.6, "g", keys=less))
    assert combine_seeds(found, [DEMO])[0].groups["demo", "Average"] is None
    (both,) = combine_seeds(found, [DEMO], partial=True)
    assert both.groups["demo", "Average"] == combine([0.4, 0.6])


def test_a_run_is_named_by_its_folder(tmp_path):
    assert run_name(str(tmp_path / "a")) == run_name(str(tmp_path / "a/eval_results.jsonl")) == "a"


def test_seeds_are_shown_with_their_spread_and_the_best_marked(make, command):
    runs = [make("clip-seed0", 0.4), make("clip-seed1", 0.41), make("all-seed0", 0.1, "g"),
            make("all-seed1", 0.11, "g")]  # fmt: skip
    code, out, _ = command("results", "show", "--seeds", *runs)
    assert code == 0
    rows = [line.split("  ") for line in out.splitlines()]
    assert [cell.strip() for cell in rows[0] if cell] == ["task", "clip (2 seeds)", "all (2 seeds)"]
    assert "demo/digits           0.4050 ± 0.0071 *  0.1050 ± 0.0071\n" in out
    assert "Average               0.4050 ± 0.0071 *  0.1050 ± 0.0071\n" in out
    assert "Average above chance  0.3852 ± 0.0073 *  0.0753 ± 0.0073\n" in out
    code, out, _ = command("results", "show", "--seeds", "--json", *runs)
    clip, other = json.loads(out)
    assert (clip["dataset"], clip["runs"]) == ("clip", runs[:2])
    assert clip["groups"]["demo"]["Average"]["n"] == 2
    assert other["results"]["demo/digits"]["mean"] == pytest.approx(0.105)
