"""One count of images over all tasks of a suite."""

import pytest
from datacomp import progress
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.suite_progress import SuiteProgress


@pytest.fixture
def told():
    """What another process would be told of the progress."""
    found = []
    progress.tell_through(lambda kind, value: found.append((kind, value)))
    yield found
    progress.tell_through(None)


def test_a_suite_is_one_piece_of_work(sets, tiny, tmp_path, told, monkeypatch):
    monkeypatch.setattr(progress, "_TELL_SECONDS", 0)
    for key, size in (("one", 5), ("two", 7), ("three", 4)):
        sets.write(key, size=size)
    one, two, three = (sets.task(k, size=n) for k, n in (("one", 5), ("two", 7), ("three", 4)))
    evaluate(tiny(0), sets.data, [two], tmp_path / "r.jsonl", device="cpu")
    told.clear()
    evaluate(tiny(0), sets.data, [one, two, three], tmp_path / "r.jsonl", device="cpu")
    updates = [value for kind, value in told if kind == "progress"]
    images = [u for u in updates if u.unit == "images"]
    assert [u.done for u in images] == sorted(u.done for u in images)
    assert {u.label for u in images} == {
        "evaluating one (task 1 of 3)", "evaluating three (task 3 of 3)", "evaluated",
        "evaluating",
    }  # fmt: skip
    last = images[-1]
    assert (last.label, last.done, last.total) == ("evaluated", 9, 9)  # two was done before


def test_a_task_never_counts_more_or_less_than_its_size(sets):
    tasks = [sets.task("a", size=3), sets.task("b", size=5)]
    with SuiteProgress(tasks) as found:
        found.skip(tasks[0])
        found.begin(tasks[1])
        for _ in range(8):
            found.advance()
        assert found._progress.done == 5
        found.end()
        assert (found._progress.done, found._progress.total) == (5, 5)
    with SuiteProgress(tasks) as found:
        for task in tasks:
            found.begin(task)
            found.advance(4)
            assert found._progress.done == (3 if task is tasks[0] else 7)
            found.end()
        assert found._progress.done == 8
