"""Evaluation sets from a server that speaks the Hub's protocol."""

import shutil

from datacomp.evaluate.evalsets import open_evalset
from datacomp.evaluate.fetching import fetch_sets, plan_sets


def published(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_sets_of_every_layout_are_brought_and_pinned(dataset_hub, sets, tmp_path):
    tars = sets.task("vtab/small")
    pairs = sets.task("retrieval/pairs", "retrieval", size=5)
    puzzles = sets.task("misc/puzzles", "winogavil", size=4)
    made = published(sets.write("vtab/small"))
    dataset_hub.repositories["djghosh/wds_vtab-small_test"] = {
        "main": made | {"README.md": b"x", "embeddings.npz": b"x"}
    }
    dataset_hub.licences["djghosh/wds_vtab-small_test"] = "mit"
    # The Hub keeps its own parquet of older forms apart, in folders.
    found = published(sets.parquet("pairs", sets.pairs(5), files=2))
    dataset_hub.repositories["nlphuji/pairs"] = {
        "main": {"images.zip": b"x"},
        "refs/convert/parquet": {f"default/test/{name}": data for name, data in found.items()},
    }
    dataset_hub.repositories["nlphuji/puzzles"] = {
        "main": published(sets.parquet("puzzles", sets.puzzles(4)))
    }
    absent = sets.task("vtab/absent")
    data = tmp_path / "evalsets"
    tasks = [tars, pairs, puzzles, absent]
    plans = plan_sets(data, tasks)
    assert [one.repository for one in plans] == [
        "djghosh/wds_vtab-small_test", "nlphuji/pairs", "nlphuji/puzzles",
        "djghosh/wds_vtab-absent_test",
    ]  # fmt: skip
    assert [one.licence for one in plans] == ["mit", "not stated", "not stated", "unknown"]
    fetched = fetch_sets(data, plans)
    assert [one.error for one in fetched[:3]] == [None, None, None]
    assert [one.known for one in fetched[:3]] == [False] * 3
    assert fetched[3].error.startswith("djghosh/wds_vtab-absent_test: no such dataset on the Hub")
    assert sorted(p.name for p in (data / "wds_vtab-small_test").iterdir()) == [
        ".download.jsonl", "classnames.txt", "test", "zeroshot_classification_templates.txt"
    ]  # fmt: skip
    assert (data / "pairs" / "default-test-test-00001-of-00002.parquet").is_file()
    for task in tasks[:3]:
        open_evalset(data, task).check_count()
    dataset_hub.asked.clear()
    again = fetch_sets(data, plan_sets(data, tasks[:3]))
    assert [(one.digest, one.known) for one in again] == [
        (one.digest, True) for one in fetched[:3]
    ]  # fmt: skip
    assert all(path.startswith("/api/") for path, _, _ in dataset_hub.asked)


def test_a_set_that_another_commit_changed_is_refused(dataset_hub, sets, tmp_path):
    task = sets.task("small")
    folder = sets.write("small")
    dataset_hub.repositories["djghosh/wds_small_test"] = {"main": published(folder)}
    data = tmp_path / "evalsets"
    (first,) = fetch_sets(data, plan_sets(data, [task]))
    assert first.error is None
    names = (folder / "classnames.txt").read_text().replace("red", "crimson")
    (folder / "classnames.txt").write_text(names)
    dataset_hub.repositories["djghosh/wds_small_test"] = {"main": published(folder)}
    shutil.rmtree(data / "wds_small_test")
    (second,) = fetch_sets(data, plan_sets(data, [task]))
    assert "the evaluation set is not what" in second.error
