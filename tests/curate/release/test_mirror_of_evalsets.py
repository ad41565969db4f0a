"""A mirror of evaluation sets is a release like any other: published, checked, streamed."""

import importlib.util
from pathlib import Path

import pytest
from datacomp.curate.release import create_release
from datacomp.distribution.release import Plan, SigningKey
from datacomp.evaluate.checking import check_sets
from datacomp.evaluate.harness import evaluate


@pytest.fixture
def sets(tmp_path, picture):
    """The writer of evaluation sets of the tests of ``evaluate``."""
    path = Path(__file__).parents[2] / "evaluate" / "conftest.py"
    spec = importlib.util.spec_from_file_location("_evaluation_sets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SetMaker(tmp_path / "sets", picture)


def test_a_mirror_is_checked_and_streamed_as_the_sets_themselves(
    sets, tiny, tmp_path, server, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sets.write("colours")
    sets.parquet("winogavil", sets.puzzles(4))
    tasks = [sets.task("colours"), sets.task("misc/winogavil", "winogavil", size=4)]
    here = check_sets(sets.data, tasks)
    releases = tmp_path / "releases"
    create_release(sets.data, releases, Plan("evalsets", "1"), SigningKey.from_seed(bytes(32)))
    mirror = releases / "versions/1/evalsets"
    original, padded = (root / "wds_colours_test/test/0.tar" for root in (sets.data, mirror))
    assert padded.stat().st_size > original.stat().st_size  # to a whole number of pieces
    there = check_sets(mirror, tasks)
    assert [one.digest for one in there] == [one.digest for one in here]
    assert all(one.known for one in there)  # the record was published too
    for path in mirror.rglob("*"):
        if path.is_file():
            server.files[f"/{path.relative_to(releases)}"] = (path.read_bytes(), "x")
    local, streamed = tmp_path / "local.jsonl", tmp_path / "streamed.jsonl"
    evaluate(tiny(0), sets.data, tasks, local, device="cpu")
    url = f"{server.url}/versions/1/evalsets"
    assert evaluate(tiny(0), url, tasks, streamed, device="cpu").failed == {}
    assert streamed.read_bytes() == local.read_bytes()
