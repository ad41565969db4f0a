import pytest
from datacomp.curate.workflow.outlook import Outlook, Watch
from datacomp.curate.workflow.scheduler import Task
from datacomp.progress import Update


def task(key, stage, needs=(), **more):
    return Task(key, stage, dict, (), tuple(needs), **more)


def training(done, total=1000):
    return Update("training", done, total, "samples")


def test_a_task_that_said_nothing_is_told_by_its_time():
    watch = Watch(task("train-a", "train", label="train a seed 0"), 100.0)
    assert watch.text(103.0) == "train a seed 0: 3.0 s"
    assert watch.expected(103.0) is None


def test_a_task_is_told_with_rate_and_time_left():
    watch = Watch(task("train-a", "train", label="train a seed 0"), 100.0)
    watch.note(training(200), 110.0)
    assert watch.text(111.0) == "train a seed 0: training: 200 of 1,000 samples"
    watch.note(training(400), 120.0)
    assert watch.text(120.0) == ("train a seed 0: training: 400 of 1,000 samples, 20/s, 30 s left")


def test_known_work_tells_the_whole_time_from_the_first_steps_on():
    watch = Watch(task("train-a", "train", amount=1000), 100.0)
    watch.note(Update("fingerprinting", 500, 600, "shards"), 101.0)
    assert watch.expected(105.0) is None  # other units are not the work
    watch.note(training(0), 110.0)
    watch.note(training(100), 120.0)
    assert watch.expected(120.0) == pytest.approx(20 + 90)


def test_work_in_several_parts_is_added_up():
    watch = Watch(task("e", "evaluate", amount=300, unit="images"), 0.0)
    watch.note(Update("evaluating a", 0, 100, "images"), 0.0)
    watch.note(Update("evaluating a", 100, 100, "images"), 10.0)
    watch.note(Update("reading b", 3, 3, "shards"), 10.0)
    watch.note(Update("evaluating b", 50, 200, "images"), 15.0)
    assert watch.expected(15.0) == pytest.approx(15 + 15)


def test_the_schedule_is_played_through():
    """Two at a time: trains of 100 s each; what runs has 60 s to go; then one evaluation."""
    running = Watch(task("t0", "train", amount=1000), 0.0)
    running.note(training(0), 0.0)
    running.note(training(400), 40.0)
    waiting = [
        task("t1", "train", amount=1000),
        task("t2", "train", amount=1000),
        task("e2", "evaluate", ["t2"]),
    ]
    outlook = Outlook(2, taken={"evaluate": [7.0]})
    assert outlook.left(waiting, [running], 40.0) == (60 + 100 + 7, [])
    assert outlook.text(waiting, [running], 40.0) == "about 2 min 47 s left"


def test_what_may_not_run_together_runs_after_one_another():
    waiting = [task(f"s{i}", "shards", exclusive="pool") for i in range(3)]
    assert Outlook(3, taken={"shards": [10.0]}).left(waiting, [], 0.0)[0] == 30.0


def test_what_nobody_measured_is_named():
    waiting = [task("t", "train"), task("e", "evaluate", ["t"])]
    outlook = Outlook(1, taken={"train": [60.0]})
    assert outlook.left(waiting, [], 0.0) == (60.0, ["evaluate"])
    assert outlook.text(waiting, [], 0.0) == (
        "at least 1 min 00 s left (evaluate not measured yet)"
    )
    assert Outlook(1).text(waiting, [], 0.0) == "time left not known yet"


def test_an_earlier_run_of_the_same_task_is_remembered():
    waiting = [task("t", "train"), task("e", "evaluate", ["t"])]
    assert Outlook(1, {"t": 50.0, "e": 5.0}).left(waiting, [], 0.0) == (55.0, [])


def test_a_pace_of_its_own_is_not_mixed_with_others():
    waiting = [task("a", "filter", pace="filter clip"), task("b", "filter", pace="filter basic")]
    outlook = Outlook(1, taken={"filter basic": [1.0]})
    assert outlook.left(waiting, [], 0.0) == (1.0, ["filter"])
