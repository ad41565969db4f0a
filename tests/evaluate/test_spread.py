"""Tasks divided among the processes of torchrun."""

import json
import shutil
import socket

import pytest
from datacomp.evaluate import spread
from datacomp.evaluate.demo_suite import build_demo_suite
from datacomp.evaluate.harness import Evaluation, evaluate
from datacomp.evaluate.models import load_run
from datacomp.evaluate.spread import Processes, evaluate_together, put_in_order, shares
from datacomp.evaluate.tasks import select_tasks


def test_tasks_are_balanced_by_size():
    tasks = select_tasks(suite="datacomp")
    for world in (1, 2, 3, 8):
        found = shares(tasks, world)
        assert sorted(t.key for share in found for t in share) == sorted(t.key for t in tasks)
        loads = [sum(task.size for task in share) for share in found]
        # Never more than a task above the mean: the bound of this rule.
        assert max(loads) <= max(sum(loads) / world * 4 / 3, *(task.size for task in tasks))
        place = [task.key for task in tasks].index
        assert all(sorted(s, key=lambda t: place(t.key)) == s for s in found)
    assert shares(tasks, 2) == shares(list(tasks), 2)
    assert max(sum(t.size for t in share) for share in shares(tasks, 8)) < 117_000


def test_torchrun_is_recognised(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Processes.of_torchrun() is None
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's scheduler sets it too
    assert Processes.of_torchrun() is None
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Processes.of_torchrun() == Processes(5, 4, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Processes.of_torchrun() is None


def test_lines_are_put_in_order_and_none_is_lost(sets, tmp_path):
    tasks = [sets.task(key) for key in "abc"]
    lines = [f'{{"key": "{key}", "n": {n}}}\n' for n, key in enumerate("czbaxc")]
    output = tmp_path / "r.jsonl"
    output.write_text("".join(lines) + '{"key": "tor')
    put_in_order(output, tasks)
    assert output.read_text() == "".join(lines[n] for n in (1, 4, 3, 2, 0, 5))
    put_in_order(tmp_path / "none.jsonl", tasks)


def test_what_a_probe_cannot_measure_is_named(sets, tiny, tmp_path, capsys, first_of_one):
    tasks = [sets.task("wild", "wilds"), sets.task("pairs", "retrieval", size=5)]
    for task in tasks:
        sets.write(task.key, task.family, size=task.size)
    output = tmp_path / "knn.jsonl"
    done = evaluate_together(
        first_of_one, tiny(0), sets.data, tasks, output, device="cpu", probe="knn"
    )
    assert [result.key for result in done.results] == ["wild"]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert said == ["warning: left out, a probe needs class labels: 1 of 2 tasks: pairs"]


@pytest.fixture
def first_of_one(monkeypatch):
    """Be the first process of one, as torchrun would have it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(port))
    return Processes(0, 1, 0)


def test_a_task_without_a_result_is_no_success(sets, tiny, tmp_path, monkeypatch, first_of_one):
    sets.write("wild", "wilds")
    task, output = sets.task("wild", "wilds"), tmp_path / "r.jsonl"
    monkeypatch.setattr(spread, "evaluate", lambda *_, **__: Evaluation())
    found = evaluate_together(first_of_one, tiny(0), sets.data, [task], output, device="cpu")
    assert found.failed == {
        "wild": f"no process left its result in {output}; do all of them write to the same file?"
    }


def test_the_first_process_decides_what_is_there(sets):
    tasks = [sets.task(key, size=size) for key, size in (("a", 9), ("b", 5), ("c", 5), ("d", 1))]
    found = [spread._share(Processes(rank, 2, rank), ["a", "c", "d"], tasks) for rank in (0, 1)]
    assert [[task.key for task in share] for share in found] == [["a", "b"], ["c", "d"]]


@pytest.mark.slow
def test_two_processes_write_what_one_does(tiny_run, tmp_path, launcher, monkeypatch):
    run, data = tiny_run(tmp_path / "run"), tmp_path / "evalsets"
    build_demo_suite(data)
    for name in ("greek", "symbols", "letters"):
        shutil.rmtree(data / f"wds_demo-{name}_test")
    tasks = select_tasks(["demo/*"])
    alone = evaluate(load_run(run).spec, data, tasks, tmp_path / "a", device="cpu")
    (data / "digests.jsonl").unlink()
    arguments = ["evaluate", run, "--data", data, "--tasks", "demo/*", "--device", "cpu", "--json"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    both = launcher.run_together(
        2, "-m", "datacomp.curate.cli", *arguments, "-o", tmp_path / "b", timeout=240
    )
    assert [done.returncode for done in both] == [0, 0], both[0].stderr[-2000:]
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert both[1].stdout == ""
    found = json.loads(both[0].stdout)
    assert found["results"] == [result.to_dict() for result in alone.results]
    assert found["failed"] == alone.failed
    assert len(found["failed"]) == 3
    # Whoever goes on, alone or together, does only what is missing.
    again = evaluate(load_run(run).spec, data, tasks, tmp_path / "b", device="cpu")
    assert again.skipped == ["demo/digits", "demo/glyph_retrieval"]
