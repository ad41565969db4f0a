import functools
import json
import shutil

import pytest
from datacomp.curate.shards import append as appending
from datacomp.curate.shards import append_shards, build_shards, check_shards
from datacomp.distribution import manifest as manifests
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError
from datacomp.pools.uids import load_subset, to_hex

PIECE = 1 << 16


@pytest.fixture
def grown(shards, select, tmp_path):
    """A build of 18 samples in three shards, and one of the three that came later."""
    build_shards(shards, select(*range(18)), tmp_path / "all", shard_size=8, pad=PIECE)
    build_shards(shards, select(18, 19, 20), tmp_path / "added", pad=PIECE)
    return tmp_path / "all", tmp_path / "added"


def test_what_was_there_stays_and_all_counts_follow(grown, make):
    folder, added = grown
    before = make.files_of(folder)
    report = append_shards(folder, added)
    assert (report.samples, report.shards, report.added) == (21, 4, ["00000003.tar"])
    after = make.files_of(folder)
    for name in before.keys() - {"meta.json", "manifest.json", "sample_ids.npy", "build.json"}:
        assert after[name] == before[name], name
    assert after["00000003.tar"] == (added / "00000000.tar").read_bytes()
    assert json.loads(after["00000003_stats.json"]) == {"successes": 3}
    meta = json.loads(after["meta.json"])
    assert (meta["output_count"], meta["output_shard_count"]) == (21, 4)
    assert meta["appended"] == [manifests.load(added / "manifest.json")["digest"]]
    uids = to_hex(load_subset(folder / "sample_ids.npy"))
    assert uids == sorted(make.uid_of(number) for number in range(21))
    assert check_shards(folder).problems == []


def test_the_same_samples_are_appended_once(grown, make):
    folder, added = grown
    append_shards(folder, added)
    before = make.files_of(folder)
    with pytest.raises(DataError, match=r"all holds its sample \w+ and 2 more already; build it"):
        append_shards(folder, added)
    assert make.files_of(folder) == before


def test_uids_are_compared_on_the_disk_and_tell_the_first(grown, make, monkeypatch):
    folder, added = grown
    append_shards(folder, added)
    for name in ("UidRuns", "walk"):
        monkeypatch.setattr(
            appending, name, functools.partial(getattr(appending, name), held=2)
        )  # fmt: skip
    with pytest.raises(DataError) as caught:
        append_shards(folder, added)
    first = min(make.uid_of(number) for number in (18, 19, 20))
    assert f"holds its sample {first} and 2 more already" in str(caught.value)


@pytest.mark.parametrize("at", ["_place", "_update_lists", "update_counts", "update_manifest"])
def test_a_killed_run_is_finished_by_the_same_call(grown, make, monkeypatch, tmp_path, at):
    folder, added = grown
    shutil.copytree(folder, tmp_path / "other")
    append_shards(tmp_path / "other", added)
    real = getattr(appending, at)

    def killed(*given):
        if at != "update_manifest":
            real(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(appending, at, killed)
        with pytest.raises(KeyboardInterrupt):
            append_shards(folder, added)
    append_shards(folder, added)
    assert check_shards(folder).problems == []
    found, wanted = make.files_of(folder), make.files_of(tmp_path / "other")
    del found["index.json"], wanted["index.json"]  # which has times
    assert found == wanted


def test_a_folder_that_has_grown_is_not_built_again(grown, shards, select, tmp_path):
    folder, added = grown
    append_shards(folder, added)
    with pytest.raises(UsageError, match="has grown since it was built"):
        build_shards(shards, select(*range(18)), folder, shard_size=8, pad=PIECE)


def test_what_does_not_go_together_is_refused(grown, shards, tmp_path, make):
    folder, added = grown
    before = make.files_of(folder)
    with pytest.raises(MissingError, match="shards: is no finished build"):
        append_shards(folder, shards)
    with pytest.raises(UsageError, match="cannot be appended to itself"):
        append_shards(folder, folder)
    meta = json.loads((added / "meta.json").read_text())
    (added / "meta.json").write_text(json.dumps({**meta, "apply_blur": "True"}))
    with pytest.raises(UsageError, match=r"all: was built without --blur, \S+added with it"):
        append_shards(folder, added)
    (added / "meta.json").write_text(json.dumps(meta))
    build = json.loads((added / "build.json").read_text())
    (added / "build.json").write_text(json.dumps({**build, "weights": "abc"}))
    with pytest.raises(UsageError, match="added: was built with weights"):
        append_shards(folder, added)
    after = make.files_of(folder)
    assert {name: after[name] for name in before} == before


def test_a_shard_that_nobody_lists_and_a_damaged_one_are_refused(grown):
    folder, added = grown
    shutil.copyfile(folder / "00000000.tar", folder / "00000003.tar")
    with pytest.raises(DataError, match=r"00000003\.tar: \S+manifest.json does not name it"):
        append_shards(folder, added)
    (folder / "00000003.tar").unlink()
    data = bytearray((added / "00000000.tar").read_bytes())
    data[600] ^= 1
    (added / "00000000.tar").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"added/00000000\.tar: is not what its manifest"):
        append_shards(folder, added)
    assert not (folder / "00000003.tar").exists()


def test_missing_uids_are_listed_until_they_come(shards, select, tmp_path, make):
    build_shards(shards, select(0, 1, 50), tmp_path / "all", keep_going=True)
    build_shards(shards, select(2, 51), tmp_path / "added", keep_going=True)
    append_shards(tmp_path / "all", tmp_path / "added")
    lines = (tmp_path / "all/missing.txt").read_text().splitlines()
    assert lines == sorted(f"{make.uid_of(n)} not_in_source" for n in (50, 51))
    assert check_shards(tmp_path / "all").problems == []


def test_the_command(grown, run):
    folder, added = grown
    code, out, _ = run("shards", "append", folder, added)
    assert code == 0
    assert out.startswith(f"{folder}: 21 samples in 4 shards, 1 of them new\ndigest ")
