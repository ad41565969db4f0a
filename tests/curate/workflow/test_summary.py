import pytest
from datacomp.curate.workflow.config import load_study
from datacomp.curate.workflow.scheduler import Record
from datacomp.curate.workflow.summary import summarise, verdict
from datacomp.evaluate.tasks import load_tasks, select_tasks


def row(name, mean, share, tied=()):
    average = {"mean": mean, "spread": 0.01}
    return {"name": name, "average": average, "share": share, "tied_with": list(tied)}


def test_a_win_is_called_a_win():
    rows = [row("clip", 0.5, 0.3), row("all", 0.4, 1.0)]
    assert verdict(rows, []) == (
        "Curation won: clip keeps 30% of the pool and is 0.100 ahead of the whole pool "
        "(0.500 against 0.400), by more than the spread of the seeds."
    )


def test_a_tie_is_called_a_tie():
    rows = [row("clip", 0.5, 0.3, ["all"]), row("all", 0.49, 1.0, ["clip"])]
    assert verdict(rows, []) == (
        "No clear winner: clip is 0.010 ahead of the whole pool (0.500 against 0.490), which is "
        "within the spread of the seeds."
    )


def test_a_loss_is_called_a_loss():
    rows = [row("all", 0.5, 1.0), row("clip", 0.4, 0.3)]
    assert verdict(rows, []) == (
        "Curation did not win: the whole pool (all) has the highest average, 0.500."
    )


def test_a_baseline_ahead_of_ties_is_no_winner():
    rows = [row("all", 0.5, 1.0, ["clip"]), row("clip", 0.4, 0.3, ["all"])]
    assert verdict(rows, []) == (
        "No clear winner: the whole pool (all) has the highest average, 0.500, but all others "
        "are within the spread of the seeds."
    )


def test_one_seed_tells_nothing():
    rows = [row("clip", 0.5, 0.3, ["all"]), row("all", 0.4, 1.0, ["clip"])]
    rows[0]["average"]["spread"] = None
    assert verdict(rows, []) == (
        "clip has the highest average, 0.500; with one seed each no spread is known, so nothing "
        "is called a difference."
    )


def test_without_a_baseline_nothing_is_compared():
    assert verdict([row("clip", 0.5, 0.3)], []) == "clip has the highest average, 0.500."


def scored(name, share, **scores):
    named = {f"demo/{key}": {"mean": value} for key, value in scores.items()}
    return {**row(name, sum(scores.values()) / len(scores), share), "scores": named}


def test_scores_of_guessing_are_called_guessing():
    tasks = [load_tasks()[key] for key in ("demo/digits", "demo/letters")]  # chance 0.1, 1/52
    rows = [scored("clip", 0.3, digits=0.11, letters=0.03)]
    rows.append(scored("all", 1.0, digits=0.09, letters=0.01))
    assert verdict(rows, tasks) == (
        "No dataset does better than chance: these scores say nothing. The highest average is "
        "0.070; train longer, or on more samples."
    )
    rows[1]["scores"]["demo/letters"]["mean"] = 0.2  # one of them knows some letters
    assert verdict(rows, tasks).startswith("Curation won: clip")


def test_a_little_on_many_tasks_is_better_than_chance():
    tasks = [task for task in load_tasks().values() if task.classes in {2, 10}]
    error = {task.key: (task.chance * (1 - task.chance) / task.size) ** 0.5 for task in tasks}
    rows = [row("clip", 0.3, 0.3), row("all", 0.2, 1.0)]
    for one, times in zip(rows, (2.5, 0.0), strict=True):
        one["scores"] = {t.key: {"mean": t.chance + times * error[t.key]} for t in tasks}
    assert verdict(rows, tasks).startswith("Curation won: clip")
    assert verdict(rows[1:], tasks).startswith("No dataset does better than chance")


def test_where_no_chance_level_is_known_nothing_is_said_of_it():
    task = load_tasks()["demo/digits"].model_copy(update={"chance": None})
    rows = [scored("clip", 0.3, digits=0.1), scored("all", 1.0, digits=0.05)]
    assert verdict(rows, [task]).startswith("Curation won: clip")


STUDY = """\
[[pool.source]]
kind = "glyphs"

[[dataset]]
name = "all"
filters = [{ use = "no_filter" }]

[[dataset]]
name = "first"
filters = [{ use = "clip_score", checkpoint = "run:all" }]

[[dataset]]
name = "second"
filters = [{ use = "clip_score", checkpoint = "run:first" }]

[train]
scale = "demo"
seeds = [3, 4]

[evaluate]
suite = "demo"
"""
TASKS = ("demo/digits", "demo/greek")
VALUES = {"all": (0.1, 0.5), "first": (0.5, 0.5), "second": (0.5, 0.5)}
"""Score of each dataset on each task; the seeds differ by 0.02."""


def records_of(names):
    """The scores that 'first' and 'second' use took 40 s; 'first' had them computed."""
    found = {"pool": Record("", 9.0, {"samples": 10, "digest": "d", "set_aside": {},
                                      "defects": None})}  # fmt: skip
    for name in names:
        now = 40.0 if name == "first" else 0.0
        chosen = {
            "filters": [], "combine": "and", "size": 5, "share": 0.5, "funnel": [],
            "scored_by": [], "precision": None, "recall": None, "kept_defects": None,
            "seconds": {"scoring": 0.0 if name == "all" else 40.0, "now": now},
        }  # fmt: skip
        found[f"filter-{name}"] = Record("", now + 2, chosen)
        found[f"shards-{name}"] = Record("", 3.0)
        for seed in (3, 4):
            values = {task: value + 0.02 * (seed - 3)
                      for task, value in zip(TASKS, VALUES[name], strict=True)}  # fmt: skip
            found[f"train-{name}-seed{seed}"] = Record("", 100.0 + seed, {"seconds": 90.0})
            found[f"evaluate-{name}-seed{seed}"] = Record("", 10.0, {"values": values})
    return found


@pytest.fixture
def summary(tmp_path):
    (tmp_path / "datacomp.toml").write_text(STUDY)
    study = load_study(tmp_path / "datacomp.toml")
    return summarise(study, [load_tasks()[key] for key in TASKS], records_of(VALUES))


def test_scoring_is_charged_to_whoever_uses_the_scores(summary):
    rows = {row["name"]: row for row in summary["datasets"]}
    own = {"filter": 2.0, "shards": 3.0, "train": 207.0, "evaluate": 20.0}
    assert rows["all"]["seconds"] == {"scoring": 0.0, **own, "total": 232.0}
    assert rows["first"]["seconds"] == {"scoring": 40.0, **own, "total": 272.0}
    assert rows["second"]["seconds"] == rows["first"]["seconds"]


def test_a_run_that_was_found_finished_is_charged_what_it_took(tmp_path):
    (tmp_path / "datacomp.toml").write_text(STUDY)
    study = load_study(tmp_path / "datacomp.toml")
    records = records_of(VALUES)
    records["train-all-seed3"] = Record("", 0.2, {"seconds": 90.0})
    rows = summarise(study, [load_tasks()[key] for key in TASKS], records)["datasets"]
    assert {row["name"]: row["seconds"]["train"] for row in rows}["all"] == 90 + 104


def test_what_was_used_is_told_apart_with_all_it_needed(summary):
    rows = {row["name"]: row for row in summary["datasets"]}
    assert rows["all"]["used"] == {"runs": [], "seconds": 0.0}
    assert rows["first"]["used"] == {"runs": ["all-seed3"], "seconds": 2 + 3 + 103.0}
    assert rows["second"]["used"] == {
        "runs": ["first-seed3", "all-seed3"], "seconds": 40 + 2 * (2 + 3 + 103.0)
    }  # fmt: skip


def test_the_best_of_a_task_are_all_that_tie(summary):
    best = {task["key"]: task["best"] for task in summary["tasks"]}
    assert best == {"demo/digits": ["first", "second"], "demo/greek": []}


def test_groups_are_averaged_if_all_of_their_tasks_are_there(summary, tmp_path):
    assert [row["aggregates"] for row in summary["datasets"]] == [{}, {}, {}]
    study = load_study(tmp_path / "datacomp.toml")
    tasks, records = select_tasks(suite="demo"), records_of(VALUES)
    for name in VALUES:
        for seed, score in ((3, 0.4), (4, 0.6)):
            values = {task.key: score for task in tasks} | {tasks[0].key: score + 0.1}
            records[f"evaluate-{name}-seed{seed}"] = Record("", 1.0, {"values": values})
    whole = summarise(study, tasks, records)["datasets"][0]["aggregates"]
    assert list(whole) == ["Average"]
    assert whole["Average"]["values"] == pytest.approx([0.42, 0.62])
    assert whole["Average"]["mean"] == pytest.approx(0.52)
    assert whole["Average"]["spread"] == pytest.approx(0.2 / 2**0.5)
