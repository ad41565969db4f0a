import re

import pytest
from datacomp.errors import DataError, IntegrityError
from datacomp.evaluate.checking import check_sets
from datacomp.evaluate.digests import record, recorded, verify
from datacomp.evaluate.evalsets import open_evalset
from datacomp.pools.tar import tar_bytes


def test_the_first_digest_counts(sets, tmp_path):
    task = sets.task("colours")
    assert not verify(tmp_path, task, "a" * 64)
    record(tmp_path, task, "a" * 64)
    record(tmp_path, task, "b" * 64)
    assert (tmp_path / "digests.jsonl").read_text().count("\n") == 1
    assert recorded(tmp_path) == {("colours", 1): "a" * 64}
    assert verify(tmp_path, task, "a" * 64)
    with pytest.raises(IntegrityError) as caught:
        verify(tmp_path, task, "b" * 64)
    assert str(caught.value) == (
        f"colours: the evaluation set is not what {tmp_path / 'digests.jsonl'} recorded "
        f"({'a' * 12}, now {'b' * 12}); fetch it again, or take its line out of that file if "
        "the change is meant"
    )
    assert not verify(tmp_path, sets.task("colours", version=2), "b" * 64)


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}', '{"key": "a", "version": "x"}', "1"])
def test_a_damaged_record_is_named_by_line(sets, tmp_path, line):
    record(tmp_path, sets.task("colours"), "a" * 64)
    file = tmp_path / "digests.jsonl"
    file.write_text(file.read_text() + line + "\n")
    message = f"{file}: line 2: not a digest; the file is damaged"
    with pytest.raises(DataError, match=rf"^{re.escape(message)}$"):
        recorded(tmp_path)


def test_sets_are_read_whole_and_recorded_once(sets):
    sets.write("colours")
    sets.write("wild", "wilds", size=5)
    sets.parquet("winogavil", sets.puzzles(2))
    tasks = [sets.task("colours"), sets.task("wild", "wilds", size=5),
             sets.task("misc/winogavil", "winogavil", size=2)]  # fmt: skip
    found = check_sets(sets.data, tasks)
    assert [(one.key, one.samples, one.flawed, one.known, one.error) for one in found] == [
        ("colours", 12, 0, False, None), ("wild", 5, 0, False, None),
        ("misc/winogavil", 2, 0, False, None),
    ]  # fmt: skip
    assert [one.digest for one in found] == [open_evalset(sets.data, t).digest() for t in tasks]
    assert all(one.known for one in check_sets(str(sets.data), tasks))


def test_what_is_wrong_is_said_and_not_recorded(sets):
    sets.write("short", size=11)
    labels = sets.write("labels", size=1, shards=1) / "test" / "0.tar"
    labels.write_bytes(tar_bytes([("a.cls", b"6"), ("a.png", b"x")]))
    names = sets.write("names") / "classnames.txt"
    names.write_text("a\nb\na\nd\ne\nf\n")
    flawed = sets.write("flawed", size=1, shards=1) / "test" / "0.tar"
    flawed.write_bytes(tar_bytes([("a.cls", b"0")]))
    tasks = [sets.task("short"), sets.task("labels", size=1), sets.task("names"),
             sets.task("flawed", size=1)]  # fmt: skip
    short, labels, names, flawed = check_sets(sets.data, tasks)
    assert short.error.endswith("11 samples, task short has 12; its score would be another; "
                                "fetch the evaluation set again")  # fmt: skip
    assert labels.error.endswith("label is 6, but classnames.txt has 6 classes (0 to 5)")
    assert names.error.endswith("classnames.txt: line 3 repeats the class 'a'")
    assert (flawed.flawed, flawed.first, flawed.error) == (1, "0.tar:a: no image", None)
    assert list(recorded(sets.data)) == [("flawed", 1)]


def test_a_record_that_cannot_be_written_is_an_error(sets):
    sets.write("colours")
    (sets.data / "digests.jsonl").mkdir()
    (one,) = check_sets(sets.data, [sets.task("colours")])
    assert one.error == (
        f"cannot write {sets.data / 'digests.jsonl'}: "
        "a folder stands where a file should be written"
    )
