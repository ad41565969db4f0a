"""Tars in an S3 store, asked through s3fs: the same bytes as from a folder, one line when not."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, index_shards, select_shards
from datacomp.curate.shards.tars import find_tars
from datacomp.errors import DataError, MissingError, StorageError
from datacomp.evaluate.data import find_shards
from datacomp.pools import patience
from datacomp.pools.ranges import OpenFiles
from datacomp.pools.stores import copied_view
from datacomp.pools.views import View

POOL = "s3://bucket/pool"


@pytest.fixture
def store(shards, s3):
    """The three tars in a bucket."""
    client = s3.client()
    for path in sorted(shards.glob("*.tar")):
        client.upload_file(str(path), "bucket", f"pool/{path.name}")
    client.close()
    return s3


def test_a_bucket_is_a_source_like_a_folder(
    store, shards, select, tmp_path, make, run, monkeypatch
):  # fmt: skip
    index_shards(shards, 1)
    index = tmp_path / "index"
    before = len(store.asked)
    report = index_shards(POOL, out=index)
    assert (report.samples, report.shards, report.requests) == (21, 3, 3)
    here, there = (pq.read_table(folder / "index.parquet") for folder in (shards, index))
    assert here.equals(there)
    again = index_shards(POOL, out=index)
    assert (again.read, again.unchanged) == (0, 3)
    subset = select(*range(0, 21, 2), 4)
    select_shards([index], subset, tmp_path / "view", shard_size=5)
    build_shards(shards, subset, tmp_path / "here", shard_size=5, workers=1)
    build_shards(index, subset, tmp_path / "there", shard_size=5, workers=2)
    whole = make.files_of(tmp_path / "here")
    assert make.files_of(tmp_path / "there") == whole
    view = View.open(tmp_path / "view")
    view.verify()
    for number in range(len(view)):
        assert view.stream(number).read() == whole[f"{number:08d}.tar"]
    command = [sys.executable, "-m", "datacomp.curate.cli", "shards", "cat", tmp_path / "view", "1"]
    cat = subprocess.run([*map(str, command)], capture_output=True, check=True)
    assert cat.stdout == whole["00000001.tar"]
    assert 0 < len(store.asked) - before < 60

    # What is not there, is another one, or does not answer.
    for place in ("s3://bucket/none", "s3://nobucket/pool"):
        with pytest.raises(MissingError, match=f"^{place}: no such folder$"):
            find_tars(place)
    pattern = "s3://bucket/pool/{00000002..00000003}.tar"
    code, _, errors = run("shards", "index", pattern, "-o", tmp_path / "none")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "s3://bucket/pool/00000003.tar: no such file" in errors
    assert not (tmp_path / "none").exists()

    opened = OpenFiles()
    size = len(opened.read(f"{POOL}/00000001.tar", 0, 512))
    client = store.client()
    client.put_object(Bucket="bucket", Key="pool/00000001.tar", Body=bytes(size))
    client.close()
    with pytest.raises(DataError, match=r"00000001\.tar: changed while it was read"):
        opened.__exit__(None, None, None)
    with pytest.raises(DataError, match=r"00000001\.tar: has changed since it was indexed"):
        View.open(tmp_path / "view").verify()
    with pytest.raises(DataError, match=r"00000001\.tar: has changed since it was indexed"):
        build_shards(index, subset, tmp_path / "changed", workers=1)
    assert not list((tmp_path / "changed").glob("*.tar*"))

    store.stop()
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match=r"00000000\.tar: cannot be read, tried 6 .*[Cc]onnect"):
        view.stream(0).read()
    code, _, errors = run("shards", "index", POOL, "-o", index)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"{POOL}: cannot be listed" in errors


def test_index_view_and_shards_stand_in_a_bucket(store, shards, select, tmp_path, make, run):
    """Nothing but the command is on this machine: tars, index, subset, view, and what is built."""
    index_shards(shards, 1)
    subset = select(*range(0, 21, 2), 4)
    select_shards([shards], subset, tmp_path / "view", shard_size=5)
    build_shards(shards, subset, tmp_path / "here", shard_size=5, workers=1)
    whole = make.files_of(tmp_path / "here")
    client = store.client()
    client.upload_file(str(subset), "bucket", "some.npy")

    def files(prefix):
        found = client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
        names = [item["Key"] for item in found]
        return {
            name.removeprefix(prefix): client.get_object(Bucket="bucket", Key=name)["Body"].read()
            for name in names
        }

    for again in (False, True):
        code, said, _ = run("shards", "index", POOL, "-o", "s3://bucket/index")
        assert (code, "(0 read, 3 unchanged)" in said) == (0, again)
    assert sorted(files("index/")) == ["index.json", "index.parquet"]
    source = ("s3://bucket/index", "s3://bucket/some.npy", "-o")
    code, said, _ = run("shards", "select", *source, "s3://bucket/view", "--shard-size", "5")
    assert code == 0
    assert said.splitlines()[-1] == "pipe:datacomp shards cat s3://bucket/view {000000..000002}"
    made = files("view/")
    assert made["samples.npy"] == (tmp_path / "view/samples.npy").read_bytes()
    code, _, errors = run("shards", "select", *source, "s3://bucket/view", "--shard-size", "4")
    assert (code, errors.count("\n")) == (2, 1)
    assert "s3://bucket/view: holds another view" in errors
    assert files("view/") == made
    command = [sys.executable, "-m", "datacomp.curate.cli", "shards", "cat", "s3://bucket/view"]
    cat = subprocess.run([*command, "1"], capture_output=True, check=True)
    assert cat.stdout == whole["00000001.tar"]
    code, *_ = run("shards", "build", *source, "s3://bucket/built", "--shard-size", "5")
    assert code == 0
    found = files("built/")
    assert sorted(found) == sorted(whole)
    assert all(found[name] == whole[name] for name in whole if name.endswith((".tar", ".npy")))
    # A folder that holds anything else is refused, also that of the source.
    for place in ("s3://bucket/pool", "s3://bucket/view"):
        before = files(place.removeprefix("s3://bucket/") + "/")
        code, _, errors = run("shards", "build", *source, place, "--shard-size", "5")
        assert (code, errors.count("\n")) == (2, 1)
        assert f"{place}: is not empty (" in errors
        assert files(place.removeprefix("s3://bucket/") + "/") == before
    # A build of which only its name has arrived goes on.
    for name in found:
        if name != "build.json":
            client.delete_object(Bucket="bucket", Key=f"built/{name}")
    code, *_ = run("shards", "build", *source, "s3://bucket/built", "--shard-size", "5")
    assert (code, files("built/")) == (0, found)
    copy = copied_view("s3://bucket/view", tmp_path / "copy")
    names = find_shards(copy)
    assert (names.samples, len(names.shards)) == (12, 3)
    with pytest.raises(MissingError, match=r"^s3://bucket/nothing: no index there; make one with"):
        select_shards(["s3://bucket/nothing"], subset, tmp_path / "other")
    with pytest.raises(StorageError, match=r"^s3://nobucket/view/samples.npy: cannot be written"):
        select_shards(["s3://bucket/index"], subset, "s3://nobucket/view")
    client.close()


def test_processes_that_need_one_view_copy_it_once(tmp_path):
    """Those of torchrun begin at the same time: all of them have it, whole."""
    source, home = tmp_path / "store", tmp_path / "run" / "view-0"
    source.mkdir()
    (source / "view.json").write_text("{}")
    samples = bytes(range(256)) * (256 << 10)
    (source / "samples.npy").write_bytes(samples)
    rank = (
        "import sys, pathlib, time\n"
        "from datacomp.pools.stores import copied_view\n"
        "go = pathlib.Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while not go.exists(): time.sleep(0.001)\n"
        "view = copied_view(sys.argv[2], pathlib.Path(sys.argv[3]))\n"
        "print((view / 'samples.npy').stat().st_size)\n"
    )
    words = [sys.executable, "-c", rank, tmp_path / "go", f"file://{source}", home]
    ranks = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for one in ranks:
        assert one.stdout.readline() == b"ready\n"
    (tmp_path / "go").touch()
    told = [one.communicate() for one in ranks]
    assert [out for out, _ in told] == [b"%d\n" % len(samples)] * 2, told
    assert (home / "samples.npy").read_bytes() == samples
