import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from datacomp import progress
from datacomp.curate.workflow.scheduler import Scheduler, Task, stable
from datacomp.errors import DataError, RunError
from datacomp.progress import Progress, say, warn

# Tasks run in processes of their own, so their functions must be importable: plain library
# functions that leave a trace serve here.
HERE = Path(__file__)


def touch(path: str, text: str = "x") -> dict:
    with open(path, "a") as file:
        file.write(text)
    return {"path": path}


def fail(message: str) -> dict:
    raise DataError(message)


def crash() -> dict:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def boom() -> dict:
    raise ValueError("two\nlines")


def hold(path: str) -> dict:
    """Fail if another task holds the same resource."""
    os.mkdir(path)
    time.sleep(0.2)
    os.rmdir(path)
    return {}


def work(seconds: float) -> dict:
    """Say how far it is, say something and warn, as stages do."""
    with Progress("working", 10, "steps") as progress:
        say("halfway", 1)
        warn("careful")
        for _ in range(10):
            time.sleep(seconds / 10)
            progress.advance()
    return {}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    monkeypatch.syspath_prepend(str(HERE.parent))
    name = HERE.stem
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, name, module)
    for function in (touch, fail, crash, boom, hold, work):
        monkeypatch.setattr(function, "__module__", name)


def task(key, run, *arguments, **more):
    return Task(key, more.pop("stage", key), run, arguments, **more)


def test_tasks_run_after_what_they_need_and_only_once(tmp_path):
    scheduler = Scheduler(tmp_path / "stages", 2)
    log = str(tmp_path / "log")
    tasks = [
        task("b", touch, log, "b", needs=("a",)),
        task("a", touch, log, "a"),
        task("c", touch, log, "c", needs=("b",)),
    ]
    records = scheduler.run(tasks)
    assert Path(log).read_text() == "abc"
    assert set(records) == {"a", "b", "c"}
    assert records["a"].result == {"path": log}
    scheduler.run(tasks)
    assert Path(log).read_text() == "abc"


def test_a_changed_setting_runs_the_task_and_all_that_need_it(tmp_path):
    scheduler = Scheduler(tmp_path / "stages", 1)
    log = str(tmp_path / "log")
    tasks = [
        task("a", touch, log, "a", settings=1),
        task("b", touch, log, "b", needs=("a",)),
        task("c", touch, log, "c"),
    ]
    scheduler.run(tasks)
    tasks[0].settings = 2
    scheduler.run(tasks)
    assert Path(log).read_text() == "abcab"
    scheduler.run(tasks, again=frozenset({"c"}))
    assert Path(log).read_text() == "abcabc"


def test_a_lost_output_or_record_runs_the_task_again(tmp_path):
    scheduler = Scheduler(tmp_path / "stages", 1)
    log = tmp_path / "log"
    tasks = [task("a", touch, str(log), outputs=(log,))]
    scheduler.run(tasks)
    log.unlink()
    scheduler.run(tasks)
    assert log.read_text() == "x"
    (tmp_path / "stages/a.json").write_text("{half")
    scheduler.run(tasks)
    assert log.read_text() == "xx"


def test_an_error_stops_new_tasks_and_keeps_its_kind_and_message(tmp_path):
    scheduler = Scheduler(tmp_path / "stages", 1)
    log = tmp_path / "log"
    tasks = [task("a", fail, "bad input"), task("b", touch, str(log), needs=("a",))]
    with pytest.raises(DataError, match=r"^a: bad input$"):
        scheduler.run(tasks)
    assert not log.exists()
    with pytest.raises(RunError, match=r"^a: ValueError: two lines \(.*:\d+\)$"):
        scheduler.run([task("a", boom)])


def test_a_killed_process_is_told(tmp_path):
    with pytest.raises(RunError, match=r"^a: its process died \(exit code -9\)"):
        Scheduler(tmp_path / "stages", 1).run([task("a", crash)])


def test_an_exclusive_resource_is_held_by_one_task(tmp_path):
    place = str(tmp_path / "held")
    tasks = [task(f"t{i}", hold, place, exclusive="pool") for i in range(4)]
    assert len(Scheduler(tmp_path / "stages", 4).run(tasks)) == 4


def test_a_person_sees_what_runs_and_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PLAIN_BOARD_SECONDS", 0.3)
    tasks = [task("a", work, 4.0, label="work a", amount=10, unit="steps"),
             task("b", touch, str(tmp_path / "log"), needs=("a",), label="touch b")]  # fmt: skip
    Scheduler(tmp_path / "stages", 1).run(tasks)
    lines = capsys.readouterr().err.splitlines()
    assert "warning: work a: careful" in lines
    assert not any("halfway" in line for line in lines)  # only with -v
    assert any(re.fullmatch(r"work a: working: \d of 10 steps, 2\.\d/s, \d\.\d s left", line)
               for line in lines), lines  # fmt: skip
    assert any(re.fullmatch(
        r"0 of 2 stages done, at least \d\.\d s left \(b not measured yet\)", line
    ) for line in lines)  # fmt: skip
    done = [line for line in lines if line.startswith("[")]
    assert re.fullmatch(r"\[1/2\] work a: [4-9]\.\d s", done[0])
    assert re.fullmatch(r"\[2/2\] touch b: \d\.\d s", done[1])


def test_quiet_is_quiet_but_for_warnings(tmp_path, capsys):
    progress.set_verbosity(-1)
    try:
        Scheduler(tmp_path / "stages", 1).run([task("a", work, 0.1)])
    finally:
        progress.set_verbosity(0)
    assert capsys.readouterr().err == "warning: a: careful\n"


def test_times_do_not_enter_fingerprints():
    assert stable({"digest": "d", "seconds": 3, "note": []}) == {"digest": "d"}


def test_records_are_whole_json(tmp_path):
    Scheduler(tmp_path / "stages", 1).run([task("a", touch, str(tmp_path / "log"))])
    record = json.loads((tmp_path / "stages/a.json").read_bytes())
    assert set(record) == {"fingerprint", "seconds", "result"}


def test_done_tasks_are_found_whatever_the_order(tmp_path):
    scheduler = Scheduler(tmp_path / "stages", 1)
    log = str(tmp_path / "log")
    tasks = [task("b", touch, log, "b", needs=("a",)), task("a", touch, log, "a")]
    scheduler.run(tasks)
    (tmp_path / "stages/b.json").unlink()
    assert set(scheduler.run(tasks)) == {"a", "b"}
    assert Path(log).read_text() == "abb"
