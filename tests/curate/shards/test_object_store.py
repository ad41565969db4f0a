"""Tars in an S3 store, asked through s3fs: the same bytes as from a folder, one line when not."""

import os
import re
import subprocess
import sys
import threading

import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, index_shards, select_shards
from datacomp.curate.shards.tars import find_tars
from datacomp.errors import DataError, MissingError
from datacomp.pools.ranges import OpenFiles
from datacomp.pools.views import View

boto3 = pytest.importorskip("boto3", reason="needs the s3 extra and moto")
s3fs = pytest.importorskip("s3fs", reason="needs the s3 extra")
pytest.importorskip("moto.server", reason="needs moto")

POOL = "s3://bucket/pool"


class Store:
    """An S3 server of its own process, and a client to fill it."""

    def __init__(self):
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p"]
        self.process = subprocess.Popen([*command, "0"], stderr=subprocess.PIPE, text=True)
        self.asked = []
        for line in self.process.stderr:
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
            if found:
                break
        else:
            raise RuntimeError("the S3 server did not start")
        self.url = found[1]
        self._reader = threading.Thread(target=self._note)
        self._reader.start()

    def _note(self):
        self.asked += (line for line in self.process.stderr if "HTTP/1.1" in line)

    def client(self):
        return boto3.client("s3", endpoint_url=self.url)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()


@pytest.fixture
def credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def store(shards, credentials, monkeypatch):
    """The three tars in a bucket."""
    store = Store()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        client = store.client()
        client.create_bucket(Bucket="bucket")
        for path in sorted(shards.glob("*.tar")):
            client.upload_file(str(path), "bucket", f"pool/{path.name}")
        client.close()
        yield store
    finally:
        store.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_a_source_like_a_folder(store, shards, select, tmp_path, make, run):
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
    with pytest.raises(DataError, match=r"00000000\.tar: cannot be read: .*[Cc]onnect"):
        view.stream(0).read()
    code, _, errors = run("shards", "index", POOL, "-o", index)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"{POOL}: cannot be listed" in errors
