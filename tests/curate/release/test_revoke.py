import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.release import diff_releases, revoke_samples
from datacomp.curate.release.revoke import read_uids
from datacomp.curate.shards import check_shards
from datacomp.distribution.release import Plan, Releases, verify_releases
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools.uids import from_hex, save_subset

from .conftest import KEY, NOW, PIECE, uid_of, write_shard


@pytest.fixture
def revoke(dataset, releases):
    def revoke(numbers, version, reason="the owner asked"):
        uids = [uid_of(number) for number in numbers]
        plan = Plan("", version, "2026-11-20")
        return revoke_samples(dataset, releases, uids, reason, plan, KEY, NOW)

    return revoke


def everything(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*.tar"))


def test_samples_are_gone_from_everywhere_here(publish, revoke, dataset, releases):
    publish("1")
    untouched = (dataset / "00000000.tar").read_bytes()
    report = revoke([6, 13], "2")
    assert (report.uids, report.shards) == (2, ["00000001.tar", "00000002.tar"])
    for folder in (dataset, releases):
        for number in (6, 13):
            assert b"caption %d\0" % number not in everything(folder)
            assert uid_of(number).encode() not in everything(folder)
    assert b"caption 7\0" in everything(releases)
    assert (dataset / "00000000.tar").read_bytes() == untouched
    assert check_shards(dataset).sound


def test_the_new_version_says_what_and_why(publish, revoke, releases):
    publish("1")
    old = Releases(releases).latest.manifest.by_path["00000001.tar"]
    revoke([6], "2", "  the owner\nasked ")
    release = Releases(releases).latest
    [removal] = release.manifest.removed
    assert removal.uids == (uid_of(6),)
    assert (removal.version, removal.serial, removal.reason) == ("2", 2, "the owner asked")
    assert removal.files == ((old.path, old.size, old.sha256),)
    assert release.manifest.counts["samples"] == 14
    assert release.manifest.by_path["00000001.tar"].size % PIECE == 0
    assert (release.folder / "tombstones.tsv").read_text() == (f"{uid_of(6)}\t2\tthe owner asked\n")


def test_only_what_changed_is_read(publish, revoke, dataset):
    publish("1")
    report = revoke([6], "2").release
    names = ["00000001.tar", "00000001_stats.json", "index.parquet"]
    assert report.read == 3
    assert report.bytes_read == sum((dataset / name).stat().st_size for name in names)


def test_the_list_is_kept_by_later_versions(publish, revoke, dataset, releases):
    publish("1")
    revoke([6], "2")
    write_shard(dataset, 3, range(15, 20))
    publish("3")
    revoke([0], "4", "blurred badly")
    latest = Releases(releases).latest.manifest
    assert [r.reason for r in latest.removed] == ["the owner asked", "blurred badly"]
    assert latest.removed_uids == {uid_of(6), uid_of(0)}
    for release in Releases(releases).versions[:3]:
        assert release.is_withdrawn("00000000.tar")
        assert not (release.data / "00000000.tar").exists()


def test_the_same_again_is_done_already(publish, revoke, releases):
    publish("1")
    revoke([6], "2")
    before = Releases(releases).latest.manifest.raw
    assert revoke([6], "2").release.there
    assert Releases(releases).latest.manifest.raw == before


def test_a_whole_shard(publish, revoke, dataset, releases):
    publish("1")
    revoke(range(5, 10), "2")
    assert (dataset / "00000001.tar").read_bytes() == bytes(PIECE)
    assert Releases(releases).latest.manifest.counts["samples"] == 10


def test_what_cannot_be_taken_back(publish, revoke):
    with pytest.raises(MissingError, match="no release there, so nothing can be taken back"):
        revoke([1], "2")
    publish("1")
    with pytest.raises(UsageError, match=rf"no version holds the sample {uid_of(77)}; take what"):
        revoke([1, 77], "2")
    with pytest.raises(UsageError, match="a reason of 1 to 1000 characters is needed, for all to"):
        revoke([1], "2", " \n")
    with pytest.raises(UsageError, match="no uid given to take back"):
        revoke([], "2")


def test_nothing_is_touched_by_a_refusal(publish, revoke, dataset):
    publish("1")
    before = everything(dataset)
    with pytest.raises(UsageError):
        revoke([1, 77], "2")
    assert everything(dataset) == before


def as_listed(release, *paths):
    files = (release.manifest.by_path[path] for path in paths)
    return {(file.path, file.size, file.sha256) for file in files}


def test_samples_that_lay_in_other_shards_before(publish, revoke, dataset, releases):
    publish("1")
    for shard in range(3):
        (dataset / f"{shard:08d}.tar").unlink()
        (dataset / f"{shard:08d}_stats.json").unlink()
    write_shard(dataset, 0, range(8))
    write_shard(dataset, 1, range(8, 15))
    publish("2")
    first, second = Releases(releases).versions
    expected = as_listed(first, "00000001.tar") | as_listed(second, "00000000.tar")
    revoke([6], "3")
    for folder in (dataset, releases):
        assert uid_of(6).encode() not in everything(folder)
    first, second, third = Releases(releases).versions
    assert set(third.manifest.removed[0].files) == expected
    assert first.is_withdrawn("00000001.tar")
    with pytest.raises(MissingError, match="was taken back after version 1"):
        first.locate("00000001.tar")
    assert first.locate("00000000.tar")
    assert first.locate("00000002.tar")
    assert verify_releases(releases, deep=True).sound


def test_samples_that_only_an_older_version_has(publish, revoke, dataset, releases):
    publish("1")
    (dataset / "00000002.tar").unlink()
    (dataset / "00000002_stats.json").unlink()
    publish("2")
    before = everything(dataset)
    expected = as_listed(Releases(releases).versions[0], "00000002.tar")
    report = revoke([13], "3")
    assert (report.uids, report.shards) == (1, [])
    assert everything(dataset) == before
    assert uid_of(13).encode() not in everything(releases)
    assert set(Releases(releases).latest.manifest.removed[0].files) == expected
    with pytest.raises(UsageError, match=rf"no version holds the sample {uid_of(13)}; take"):
        revoke([13], "4")


def test_a_parquet_that_names_samples_its_shard_has_lost(publish, revoke, dataset, releases):
    rows = pa.table({"uid": [uid_of(n) for n in range(5, 10)]})
    pq.write_table(rows, dataset / "00000001.parquet")
    publish("1")
    write_shard(dataset, 1, [5, 7, 8, 9])
    publish("2")
    expected = as_listed(Releases(releases).versions[0], "00000001.tar", "00000001.parquet")
    revoke([6], "3")
    assert set(Releases(releases).latest.manifest.removed[0].files) == expected
    assert uid_of(6) not in pq.read_table(dataset / "00000001.parquet")["uid"].to_pylist()
    assert not (releases / "versions/2/cats/00000001.parquet").exists()


def test_samples_that_stand_there_twice(publish, revoke, dataset, releases):
    write_shard(dataset, 2, [10, 11, 6])
    publish("1")
    revoke([6], "2")
    assert uid_of(6).encode() not in everything(releases)
    assert revoke([6], "2").release.there


def test_a_version_without_an_index(publish, revoke, dataset, releases):
    publish("1")
    (releases / "versions/1/cats/index.parquet").unlink()
    write_shard(dataset, 1, [5, 7, 8, 9])
    publish("2")
    revoke([6], "3")
    assert uid_of(6).encode() not in everything(releases)
    assert revoke([6], "3").release.there


def test_lists_of_uids(tmp_path):
    a, b = sorted([uid_of(1), uid_of(2)])
    (tmp_path / "a.txt").write_text(f"# gone\n{b}  # asked\n\n{a}\n")
    assert read_uids(tmp_path / "a.txt") == [b, a]
    save_subset(tmp_path / "a.npy", from_hex([b, a]))
    assert read_uids(tmp_path / "a.npy") == [a, b]
    (tmp_path / "b.txt").write_text(f"{a}\nxyz\n")
    with pytest.raises(DataError, match=r"b\.txt: line 2: expected a uid of 32 hex digits, found"):
        read_uids(tmp_path / "b.txt")
    with pytest.raises(MissingError, match="no such file of uids"):
        read_uids(tmp_path / "c.txt")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="neither a subset"):
        read_uids(tmp_path / "d.txt")


SCRIPT = """
import os, random, signal, sys, time, shutil
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import KEY, NOW, uid_of
from datacomp.curate.release import revoke_samples
from datacomp.distribution.release import Plan
import datacomp.distribution.ipfs.ipns, pyarrow.parquet

here = Path(sys.argv[2])
uids = [uid_of(number) for number in (1, 6, 7, 13)]

def in_child(folder, seconds=None):
    child = os.fork()
    if child == 0:
        try:
            plan = Plan("", "2", "2026-11-20", workers=1)
            revoke_samples(folder / "data", folder / "releases", uids, "asked", plan, KEY, NOW)
            os._exit(0)
        except BaseException as error:
            print("failed:", repr(error), flush=True)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

def copy(name):
    # By inode, so that links stay links.
    os.system(f"cp -a {here}/original {here}/{name}")
    return here / name

start = time.monotonic()
assert in_child(copy("whole")) == 0
took = time.monotonic() - start
dice = random.Random(int(sys.argv[3]))
for number in range(6):
    folder = copy(str(number))
    in_child(folder, dice.uniform(0, took))
    assert in_child(folder) == 0
"""


def test_killed_at_random_points(publish, dataset, releases, tmp_path):
    import random
    from pathlib import Path

    publish("1")
    (tmp_path / "original").mkdir()
    dataset.rename(tmp_path / "original/data")
    releases.rename(tmp_path / "original/releases")
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, Path(__file__).parent, tmp_path, str(seed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stdout} {done.stderr}"

    def visible(folder):
        return {
            p.relative_to(folder): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file() and p.name != "index.json" and ".state" not in p.parts
        }

    expected = visible(tmp_path / "whole")
    for number in range(6):
        assert visible(tmp_path / str(number)) == expected, f"seed {seed}, folder {number}"


def test_a_diff_shows_it(publish, revoke, releases):
    publish("1")
    revoke([6], "2")
    report = diff_releases(releases, "1", "2")
    assert report.samples.removed == [uid_of(6)]
    assert report.files.changed == ["00000001.tar", "00000001_stats.json", "index.parquet"]
    # Their old shard was deleted, so what is left of it cannot be compared.
    assert report.unknown == sorted(uid_of(n) for n in (5, 7, 8, 9))
