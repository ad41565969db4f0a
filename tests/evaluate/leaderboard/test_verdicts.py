"""What was judged is remembered, and nobody who writes to a store can make it up."""

import json
import os

import numpy as np
import pytest
from datacomp.evaluate.leaderboard import verdicts
from datacomp.evaluate.leaderboard.check import check
from datacomp.evaluate.leaderboard.store import add
from datacomp.evaluate.leaderboard.verdicts import Verdicts
from datacomp.pools.uids import from_hex


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datacomp" / "verdicts"


@pytest.fixture
def board(submission, tmp_path):
    for more in ({"seeds": (0, 1)}, {"quality": 0.3}):
        add(tmp_path / "board", submission(**more))
    return tmp_path / "board"


@pytest.fixture
def judged(monkeypatch):
    """Return the names of what is checked in full from here on."""
    names = []

    def noted(folder, **more):
        names.append(folder.name)
        return check(folder, **more)

    monkeypatch.setattr(verdicts, "check", noted)
    return names


def plain(rows):
    return [
        (r.id, r.method, r.size, dict(r.averages), r.estimate, dict(r.tasks), list(r.tasks),
         r.replicates.tobytes(), r.record, list(r.passed), dict(r.not_replayed), list(r.averages))
        for r in rows
    ]  # fmt: skip


def test_the_second_time_nothing_is_judged_and_all_is_the_same(board, cache, judged):
    first, _ = Verdicts(board).load()
    assert len(judged) == 2
    again, refused = Verdicts(board).load()
    assert len(judged) == 2
    assert refused == {}
    assert plain(again) == plain(first)


def test_one_that_came_since_is_judged_alone(board, cache, judged, submission):
    Verdicts(board).load()
    report, _ = add(board, submission(quality=0.5))
    judged.clear()
    assert len(Verdicts(board).load()[0]) == 3
    assert judged == [report.id]


@pytest.mark.parametrize("name", ["results/0.jsonl", "samples/chosen.npy"])
def test_a_file_changed_since_is_judged_again_and_refused(board, cache, name):
    rows, _ = Verdicts(board).load()
    file = board / "small" / "filtering" / rows[0].id / name
    kept = os.stat(file)
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    left, refused = Verdicts(board).load()
    assert [row.id for row in left] == [rows[1].id]
    assert [one.rule for report in refused.values() for one in report.refused] == ["files"]


def test_a_forged_record_has_no_verdict(board, cache, forge):
    rows, _ = Verdicts(board).load()
    place = board / "small" / "filtering" / rows[0].id
    forge(place, lambda content: content["runs"][0]["aggregates"].update(Average=0.99))
    left, refused = Verdicts(board).load()
    assert [row.id for row in left] == [rows[1].id]
    told = [one.rule for report in refused.values() for one in report.refused]
    assert "aggregates" in told


def test_refusals_are_not_remembered(board, cache, judged):
    (board / "small" / "filtering" / "none").mkdir()
    for _ in range(2):
        _, refused = Verdicts(board).load()
        assert list(refused) == ["small/filtering/none"]
    assert judged.count("none") == 2


def test_other_rules_judge_again(board, cache, judged, monkeypatch):
    Verdicts(board).load()
    judged.clear()
    monkeypatch.setattr(verdicts, "rules", lambda: "0" * 64)
    Verdicts(board).load()
    assert len(judged) == 2


def test_another_pool_judges_again(board, cache, judged):
    rows, _ = Verdicts(board).load()
    assert all("pool" in row.not_replayed for row in rows)
    judged.clear()
    whole = from_hex([f"{i:032x}" for i in range(300)])
    rows, _ = Verdicts(board, {"small": whole}).load()
    assert all("pool" in row.passed for row in rows)
    assert len(judged) == 2
    assert Verdicts(board, {"small": whole}).load()[0][0].passed == rows[0].passed
    assert len(judged) == 2
    rows, refused = Verdicts(board, {"small": whole[:10]}).load()
    assert rows == []
    assert {one.rule for report in refused.values() for one in report.refused} == {"pool"}


def test_what_the_store_holds_is_never_a_verdict(board, monkeypatch, judged):
    monkeypatch.setenv("XDG_CACHE_HOME", str(board / ".server"))
    for _ in range(2):
        Verdicts(board).load()
    assert len(judged) == 4
    assert not (board / ".server").exists()


def test_a_folder_that_others_may_write_to_is_not_believed(board, cache, judged):
    Verdicts(board).load()
    cache.chmod(0o777)
    Verdicts(board).load()
    assert len(judged) == 4


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\n", b'{"key":"', b'{"key":"x"}\n' * 3])
def test_a_damaged_memory_is_none(board, cache, judged, damage):
    rows, _ = Verdicts(board).load()
    (file,) = cache.iterdir()
    file.write_bytes(damage + file.read_bytes()[:-40])
    assert plain(Verdicts(board).load()[0]) == plain(rows)
    for line in file.read_text().splitlines():
        json.loads(line)


def test_a_row_of_another_shape_is_judged_again(board, cache, judged):
    rows, _ = Verdicts(board).load()
    (file,) = cache.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["row"]["tasks"] = 3
    del lines[1]["row"]["estimate"]
    file.write_text("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines))
    judged.clear()
    assert plain(Verdicts(board).load()[0]) == plain(rows)
    assert len(judged) == 2


def test_what_is_kept_one_by_one_is_found(board, cache, judged):
    one = Verdicts(board)
    for name in ("small/filtering/" + p.name for p in (board / "small" / "filtering").iterdir()):
        one.keep(*one.judge(name))
    judged.clear()
    rows, _ = Verdicts(board).load()
    assert judged == []
    assert all(isinstance(row.replicates, np.ndarray) for row in rows)
