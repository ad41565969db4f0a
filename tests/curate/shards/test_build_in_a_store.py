"""A build whose shards go to an S3 store one by one: what is there is whole, and stays."""

import json
import re
import subprocess
import sys
import tempfile
import time

import pytest
from datacomp.curate.shards import build_shards, index_shards
from datacomp.errors import DataError, StorageError, UnsafeInputError, UsageError
from datacomp.pools import patience

ALL = tuple(range(21))
OUT = "s3://bucket/out"
NOTE = re.compile(r"building\.(\d{8})\.(\d+)\.[0-9a-f]{64}\.[0-9a-f]{16}")


@pytest.fixture
def client(s3):
    client = s3.client()
    yield client
    client.close()


@pytest.fixture
def files(client):
    """Return the bytes of every file of the build by name."""

    def files():
        found = client.list_objects_v2(Bucket="bucket", Prefix="out/").get("Contents", [])
        return {
            item["Key"].removeprefix("out/"): client.get_object(Bucket="bucket", Key=item["Key"])[
                "Body"
            ].read()
            for item in found
        }

    return files


@pytest.fixture
def sent(throttle):
    """Return the names of what was put into the build since this was asked last, in order."""

    def sent(method="PUT"):
        paths = [path for verb, path, _ in throttle.seen if verb == method]
        throttle.seen.clear()
        return [path.partition("?")[0].removeprefix("/bucket/out/") for path in paths]

    return sent


@pytest.fixture
def whole(shards, select, tmp_path, make):
    """The files of a build of 11 shards in a folder."""
    index_shards(shards, 1)
    build_shards(shards, select(*ALL), tmp_path / "whole", shard_size=2, workers=1)
    return make.files_of(tmp_path / "whole")


@pytest.fixture
def broken_off(shards, select, whole, throttle, monkeypatch):
    """Break a build off at its fourth shard, for which the store has no ear."""
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    throttle.trouble = lambda method, path: (
        "throttle" if method == "PUT" and path.endswith("/out/00000003.tar") else None
    )
    with pytest.raises(StorageError) as caught:
        build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)
    assert str(caught.value).startswith(f"{OUT}/00000003.tar: cannot be written, tried 6 times: ")
    throttle.trouble = lambda method, path: None
    throttle.seen.clear()


def test_the_files_are_those_of_a_folder_and_stay(shards, select, whole, files, sent):
    subset = select(*ALL)
    first = build_shards(shards, subset, OUT, shard_size=2, workers=2)
    assert files() == whole
    order = [name for name in sent() if not name.startswith("building.")]
    assert (order[0], order[-1]) == ("build.json", "manifest.json")
    assert sorted(order) == sorted(whole)  # each of them once
    again = build_shards(shards, subset, OUT, shard_size=2, workers=2)
    assert (again.path, again.reused, again.shards, again.digest) == (OUT, 11, 11, first.digest)
    assert (sent("PUT"), files()) == ([], whole)


def test_a_shard_is_noted_when_it_is_there(broken_off, files, whole, sent, shards, select):
    found = files()
    notes = [NOTE.fullmatch(name) for name in found if name.startswith("building.")]
    assert [(int(note[1]), int(note[2])) for note in notes] == [
        (number, len(whole[f"{number:08d}.tar"])) for number in range(3)
    ]
    made = {name: data for name, data in found.items() if not name.startswith("building.")}
    assert made == {name: whole[name] for name in made}
    assert len(made) == 7  # build.json, and three shards with their stats
    report = build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)
    assert (report.reused, files()) == (3, whole)
    tars = [name for name in sent() if name.endswith(".tar")]
    assert tars == [f"{number:08d}.tar" for number in range(3, 11)]


def test_what_is_not_as_noted_is_built_again(
    broken_off, files, whole, sent, shards, select, client
):  # fmt: skip
    def put(name, data=b""):
        client.put_object(Bucket="bucket", Key=f"out/{name}", Body=data)

    notes = sorted(name for name in files() if name.startswith("building."))
    put("00000000.tar", b"another size")
    client.delete_object(Bucket="bucket", Key=f"out/{notes[1]}")
    put(f"{notes[1][:-16]}{'0' * 16}")  # of another build
    put("building.00000004.512.abc")
    put(f"building.00000005.{'9' * 40}.{notes[0][-81:]}")
    put(f"building.00000006.0{notes[0][notes[0].index('.', 20) :]}", b"a shard that is not there")
    put("building/00000007.json", bytes(100_000))
    report = build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)
    assert report.reused == 1
    found = files()
    assert {name: data for name, data in found.items() if "building" not in name} == whole
    assert (
        [name for name in found if "building" in name]
        == [
            "building.00000004.512.abc",  # not ours to remove
            f"building.00000005.{'9' * 40}.{notes[0][-81:]}",
            "building/00000007.json",
        ]
    )
    assert "00000002.tar" not in sent()


@pytest.mark.parametrize("name", ["00000005.tar", "00000005_stats.json", "manifest.json"])
def test_what_is_lost_of_a_finished_build_is_made_again(
    whole, files, sent, shards, select, client, name
):  # fmt: skip
    subset = select(*ALL)
    build_shards(shards, subset, OUT, shard_size=2, workers=2)
    client.delete_object(Bucket="bucket", Key=f"out/{name}")
    sent()
    report = build_shards(shards, subset, OUT, shard_size=2, workers=2)
    assert files() == whole
    number = name[:8]
    if name == "manifest.json":  # nothing says any more what the shards are
        assert report.reused == 0
    else:
        assert report.reused == 10
        assert [n for n in sent() if "building" not in n] == [
            f"{number}.tar", f"{number}_stats.json", "manifest.json",
        ]  # fmt: skip


def test_another_build_or_a_damaged_one_is_refused(broken_off, files, sent, shards, select, client):
    before = files()
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(*ALL), OUT, shard_size=3, workers=1)
    assert str(caught.value) == (
        f"{OUT}: holds another build (shard_size: 2 instead of 3); "
        "choose another folder or remove this one"
    )
    assert (files(), sent("PUT"), sent("DELETE")) == (before, [], [])
    client.put_object(Bucket="bucket", Key="out/build.json", Body=b"{")
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)
    assert str(caught.value) == (
        f"{OUT}/build.json: damaged; remove the folder {OUT} and build again"
    )
    client.put_object(Bucket="bucket", Key="out/build.json", Body=before["build.json"])
    client.put_object(Bucket="bucket", Key="out/manifest.json", Body=b"[" * 100_000)
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)
    assert str(caught.value) == (
        f"{OUT}/manifest.json: not a manifest (format is not 'datacomp-manifest')"
    )
    altered = {"format": "datacomp-manifest", "version": 1, "total_bytes": 1, "digest": ""}
    altered["files"] = [{"path": "../x.tar", "size": 1, "sha256": "0" * 64}]
    text = json.dumps(altered).encode()
    client.put_object(Bucket="bucket", Key="out/manifest.json", Body=text)
    with pytest.raises(UnsafeInputError, match=r"manifest.json: file name '../x.tar' is not a pl"):
        build_shards(shards, select(*ALL), OUT, shard_size=2, workers=1)


def test_a_changed_source_makes_room_where_it_is_asked_to(
    broken_off, files, shards, select, make, tmp_path
):  # fmt: skip
    subset = select(*ALL)
    make.write_shard(shards, 3, make.members(50))
    index_shards(shards, 1)
    with pytest.raises(UsageError, match=r"^s3://bucket/out: holds another build \(source: "):
        build_shards(shards, subset, OUT, shard_size=2, workers=1)
    report = build_shards(shards, subset, OUT, shard_size=2, workers=1, renew=True)
    build_shards(shards, subset, tmp_path / "renewed", shard_size=2, workers=1)
    assert (report.reused, files()) == (0, make.files_of(tmp_path / "renewed"))


def test_a_worker_has_one_tar_on_its_disk_at_a_time(
    whole, files, shards, select, throttle, tmp_path, monkeypatch
):  # fmt: skip
    home = tmp_path / "tmp"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    seen = []

    def look(method, path):
        if method == "PUT" and path.endswith(".tar"):
            seen.append(len([file for file in home.rglob("*.tar*") if file.is_file()]))

    throttle.trouble = look
    build_shards(shards, select(*ALL), OUT, shard_size=2, workers=2)
    assert len(seen) == 11
    assert max(seen) <= 2
    assert (list(home.iterdir()), files()) == ([], whole)


def test_trouble_that_passes_is_not_seen(whole, files, shards, select, throttle, monkeypatch):
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    met = set()

    def trouble(method, path):
        if (method, path) in met:
            return None
        met.add((method, path))
        return ("throttle", "drop", None)[len(met) % 3]

    throttle.trouble = trouble
    build_shards(shards, select(*ALL), OUT, shard_size=2, workers=2)
    assert files() == whole


def test_killed_anywhere_and_run_again_gives_the_same_files(
    whole, files, sent, shards, select, throttle
):  # fmt: skip
    subset = select(*ALL)
    command = [
        sys.executable, "-m", "datacomp.curate.cli", "shards", "build", shards, subset, "-o", OUT,
        "--shard-size", "2", "--workers",
    ]  # fmt: skip

    def killed_at(verb, start, workers):
        """Kill a build when it asks for something; return the shards noted so far."""
        process = subprocess.Popen([*map(str, command), str(workers)])
        throttle.trouble = lambda method, path: (
            process.kill() if method == verb and path.startswith(f"/bucket/out/{start}") else None
        )
        assert process.wait() == -9
        time.sleep(0.5)  # what was under way is answered by then
        throttle.trouble = lambda method, path: None
        found = files()
        for name, data in found.items():
            assert name.startswith("building.") or data == whole[name]
        sent()
        return sorted(note[1] for note in map(NOTE.fullmatch, found) if note)

    first = killed_at("PUT", "00000002.tar", 1)
    assert first == ["00000000", "00000001"]
    second = killed_at("PUT", "building.", 5)  # processes; the others are threads
    assert first < second
    build_shards(shards, subset, OUT, shard_size=2, workers=2)
    tars = [name.removesuffix(".tar") for name in sent() if name.endswith(".tar")]
    assert sorted([*second, *tars]) == [f"{number:08d}" for number in range(11)]
    assert files() == whole


@pytest.mark.parametrize(
    ("verb", "start"), [("PUT", "meta.json"), ("PUT", "manifest.json"), ("DELETE", "building.")]
)
def test_broken_off_at_its_end_it_is_ended(
    whole, files, sent, shards, select, throttle, monkeypatch, verb, start
):  # fmt: skip
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    throttle.trouble = lambda method, path: (
        "throttle" if method == verb and path.startswith(f"/bucket/out/{start}") else None
    )
    with pytest.raises(StorageError, match=rf"^{OUT}/{start}.*, tried 6 times: .*; run the same"):
        build_shards(shards, select(*ALL), OUT, shard_size=2, workers=2)
    throttle.trouble = lambda method, path: None
    sent()
    report = build_shards(shards, select(*ALL), OUT, shard_size=2, workers=2)
    assert (report.reused, files()) == (11, whole)
    rest = ["sample_ids.npy", "meta.json", "manifest.json"]
    assert sent() == ([] if verb == "DELETE" else rest)


def test_a_folder_that_fsspec_knows_is_a_store_too(whole, shards, select, out, make):
    out.mkdir()
    for reused in (0, 11):
        report = build_shards(shards, select(*ALL), f"file://{out}", shard_size=2, workers=2)
        assert (report.reused, make.files_of(out)) == (reused, whole)
