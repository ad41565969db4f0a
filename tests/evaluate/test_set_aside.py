import json

import pytest
from datacomp.errors import DataError
from datacomp.evaluate.set_aside import SetAsideLog


def test_nothing_set_aside_leaves_no_file(tmp_path):
    log = SetAsideLog(tmp_path / "set_aside.jsonl")
    assert (log.settle().counts, log.settle().named) == ({}, [])
    assert list(tmp_path.iterdir()) == []


def test_what_several_processes_list_is_listed_once_and_in_order(tmp_path):
    path = tmp_path / "set_aside.jsonl"
    logs = [SetAsideLog(path), SetAsideLog(path)]
    for log in logs:
        log.add(1, "0.tar", "b", "image_broken", "two\nlines")
        log.add(0, "1.tar", "", "shard_broken")
        log.add(0, "1.tar", "", "shard_broken")
    assert len(path.read_text().splitlines()) == 4
    logs[0].refresh()
    logs[0].add(0, "0.tar", "\udcff", "no_caption")
    report = logs[0].settle()
    assert report.counts == {"image_broken": 1, "no_caption": 1, "shard_broken": 1}
    assert report.named == [
        "0.tar:\udcff: no_caption", "1.tar: shard_broken", "0.tar:b: image_broken (two lines)",
    ]  # fmt: skip
    once = path.read_bytes()
    assert len(once.splitlines()) == 3
    assert SetAsideLog(path).settle() == report
    assert path.read_bytes() == once


def test_only_the_first_are_named_but_all_are_listed(tmp_path):
    path = tmp_path / "set_aside.jsonl"
    entry = {"source": 0, "shard": "0.tar", "reason": "no_image", "detail": ""}
    lines = [json.dumps({**entry, "sample": f"{number:04d}"}) for number in range(250)]
    path.write_text("\n".join(reversed(lines)) + "\n")
    report = SetAsideLog(path).settle()
    assert report.counts == {"no_image": 250}
    assert (len(report.named), report.named[0]) == (100, "0.tar:0000: no_image")
    assert len(path.read_text().splitlines()) == 250


def test_a_torn_line_is_not_there_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "set_aside.jsonl"
    log = SetAsideLog(path)
    log.add(0, "0.tar", "a", "no_image")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    log.refresh()
    log.add(0, "0.tar", "b", "no_image")
    assert log.settle().counts == {"no_image": 2}
    path.write_bytes(b"{\n")
    with pytest.raises(DataError, match=r"set_aside\.jsonl: damaged; train into another folder"):
        log.settle()
