"""Datasets of the Hub, from a server on this machine that speaks its protocol."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from datacomp.errors import (
    DataError,
    IntegrityError,
    MissingError,
    StorageError,
    UnsafeInputError,
    UsageError,
)
from datacomp.pools import Pool
from datacomp.pools import http as http_client
from datacomp.pools.features import Features
from datacomp.pools.hub import transfer
from datacomp.pools.hub.commonpool import plan_pool
from datacomp.pools.hub.folder import RECORD, carry_out, plan
from datacomp.pools.hub.listing import list_repository

SMALL = "mlfoundations/datacomp_small"


@pytest.fixture
def small(dataset_hub, commonpool, tmp_path):
    """Publish a pool of five files of metadata with features; return the server."""
    made = commonpool(tmp_path / "made", files=5, rows=4)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    files["README.md"] = b"# small\n"
    dataset_hub.repositories[SMALL] = {"main": files}
    dataset_hub.licences[SMALL] = "cc-by-4.0"
    return dataset_hub


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)


def everything(repository):
    return repository.files


def asked_files(hub):
    return [path for path, _, _ in hub.asked if not path.startswith("/api/")]


def test_a_listing_has_sizes_digests_and_the_commit(small):
    found = list_repository(SMALL)
    data = small.repositories[SMALL]["main"]
    assert [file.path for file in found.files] == sorted(data)
    assert found.licence == "cc-by-4.0"
    for file in found.files:
        assert (file.size, file.kind) == (len(data[file.path]), "sha256")
        assert file.digest == hashlib.sha256(data[file.path]).hexdigest()
    pages = [path for path, _, _ in small.asked if f"/tree/{found.commit}" in path]
    assert len(pages) == 4  # eleven files, in pages of three


def test_metadata_are_brought_and_verified(small, tmp_path):
    folder = tmp_path / "small"
    found = plan_pool("small", folder)
    assert len(found.wanted) == len(found.missing) == 5
    assert found.left == found.total == sum(file.size for file in found.wanted)
    assert found.seconds(8) == pytest.approx(found.left / 1e6)
    carry_out(found)
    data = small.repositories[SMALL]["main"]
    names = sorted(name for name in data if name.endswith(".parquet"))
    assert sorted(path.name for path in (folder / "metadata").iterdir()) == names
    for name in names:
        assert (folder / "metadata" / name).read_bytes() == data[name]
    small.asked.clear()
    again = plan_pool("small", folder)
    assert (again.missing, again.left) == ((), 0)
    carry_out(again)
    assert asked_files(small) == []


def test_features_and_parts_are_chosen(small, tmp_path):
    folder = tmp_path / "small"
    found = plan_pool("small", folder, features=True, parts=2)
    assert [file.path for file in found.wanted] == [
        "00ab.parquet", "00ab.npz", "01ab.parquet", "01ab.npz"
    ]  # fmt: skip
    carry_out(found)
    with Pool.open(folder) as pool:
        assert pool.count() == 8
        assert sum(len(uids) for uids, _ in Features(pool, "l14_img").batches()) == 8
    more = plan_pool("small", folder, features=True)
    assert [file.path for file in more.missing] == [
        f"{n:02d}ab.{kind}" for n in (2, 3, 4) for kind in ("parquet", "npz")
    ]  # fmt: skip


def test_folders_of_the_largest_pool_stay(small, tmp_path):
    files = small.repositories[SMALL]["main"]
    name = "mlfoundations/datacomp_xlarge"
    small.repositories[name] = {
        "main": {f"part_{n:05d}/{n:02d}ab.parquet": files[f"{n:02d}ab.parquet"] for n in range(3)}
    }
    carry_out(plan_pool("xlarge", tmp_path / "x"))
    assert (tmp_path / "x" / "metadata" / "part_00002" / "02ab.parquet").is_file()
    with Pool.open(tmp_path / "x") as pool:
        assert pool.count() == 12


def test_what_was_broken_off_goes_on(small, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PIECE", 700)
    small.breaks = 3
    folder = tmp_path / "small"
    (folder / "metadata").mkdir(parents=True)
    data = small.repositories[SMALL]["main"]["00ab.parquet"]
    (folder / "metadata" / ".00ab.parquet.partial").write_bytes(data[:1000])
    # A longer one than the whole cannot be its beginning.
    (folder / "metadata" / ".01ab.parquet.partial").write_bytes(bytes(100_000))
    (folder / "metadata" / "02ab.parquet").write_bytes(
        small.repositories[SMALL]["main"]["02ab.parquet"]
    )
    found = plan_pool("small", folder)
    assert found.left < found.total
    carry_out(found)
    for file in found.wanted:
        brought = (folder / "metadata" / file.path).read_bytes()
        assert brought == small.repositories[SMALL]["main"][file.path]
    asked = [(path, span) for path, span, _ in small.asked if "/resolve/" in path]
    assert "bytes=1000-1699" in [span for _, span in asked]
    assert not any("02ab" in path for path, _ in asked)
    assert plan_pool("small", folder).missing == ()


def test_other_bytes_are_never_kept(small, tmp_path):
    data = small.repositories[SMALL]["main"]["03ab.parquet"]
    small.lying[hashlib.sha256(data).hexdigest()] = bytes(len(data))
    folder = tmp_path / "small"
    with pytest.raises(IntegrityError, match="not the bytes that the Hub promised"):
        carry_out(plan_pool("small", folder))
    assert not (folder / "metadata" / "03ab.parquet").exists()
    assert not (folder / "metadata" / ".03ab.parquet.partial").exists()
    small.lying.clear()
    carry_out(plan_pool("small", folder))
    assert (folder / "metadata" / "03ab.parquet").read_bytes() == data
    # A file that was changed here is looked at again, and mended.
    (folder / "metadata" / "03ab.parquet").write_bytes(b"x")
    carry_out(plan_pool("small", folder))
    assert (folder / "metadata" / "03ab.parquet").read_bytes() == data


def test_a_folder_stays_with_its_commit(small, tmp_path):
    folder = tmp_path / "small"
    carry_out(plan_pool("small", folder, parts=2))
    commit = json.loads((folder / RECORD).read_text().splitlines()[0])["commit"]
    small.repositories[SMALL]["later"] = {"new.parquet": b"new"}
    assert plan_pool("small", folder).repository.commit == commit
    small.repositories["mlfoundations/datacomp_medium"] = {"main": {"a.parquet": b"x"}}
    with pytest.raises(UsageError) as caught:
        plan_pool("medium", folder)
    assert str(caught.value) == (
        f"{folder}: holds files of {SMALL}, not of mlfoundations/datacomp_medium; name another "
        "folder"
    )
    (folder / RECORD).write_text("{")
    with pytest.raises(DataError) as caught:
        plan_pool("small", folder)
    assert str(caught.value) == (
        f"{folder / RECORD}: damaged; remove it, and the files here are verified anew"
    )


def test_who_asks_is_told_to_the_hub_alone(small, tmp_path, monkeypatch):
    small.gated.add(SMALL)
    with pytest.raises(MissingError) as caught:
        plan_pool("small", tmp_path / "s")
    assert str(caught.value) == (
        f"{SMALL}: its owners ask for agreement first: give it on the page of {SMALL} on the Hub, "
        "then set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    small.asked.clear()
    carry_out(plan_pool("small", tmp_path / "s", parts=1))
    told = {path.split("/")[1]: token for path, _, token in small.asked}
    assert told == {"api": "Bearer hf_token", "datasets": "Bearer hf_token", "elsewhere": None}


def test_what_is_not_there_is_one_line(small, tmp_path, monkeypatch):
    with pytest.raises(UsageError) as caught:
        plan_pool("smal", tmp_path)
    assert str(caught.value) == (
        "unknown pool 'smal' (did you mean 'small'?); there are: small, medium, large, xlarge, "
        "datacomp_1b"
    )
    with pytest.raises(MissingError) as caught:
        plan_pool("large", tmp_path)
    assert str(caught.value) == (
        "mlfoundations/datacomp_large: no such dataset on the Hub, or not open to you; HF_TOKEN "
        "says who you are"
    )
    small.repositories["mlfoundations/datacomp_large"] = {"main": {"README.md": b"x"}}
    with pytest.raises(DataError) as caught:
        plan_pool("large", tmp_path)
    assert str(caught.value) == (
        "mlfoundations/datacomp_large: the Hub has none of the files that should be there"
    )
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"the Hub cannot be asked: .*; try again later"):
        plan_pool("small", tmp_path)


@pytest.mark.parametrize("path", ["../a.parquet", "/etc/a.parquet", "a\\b.parquet", "x//a.parquet"])
def test_names_that_leave_the_folder_are_refused(small, tmp_path, path):
    small.repositories[SMALL]["main"] = {path: b"x"}
    with pytest.raises(UnsafeInputError, match=r"the Hub lists a file named .*; refused"):
        plan_pool("small", tmp_path)


def test_names_that_would_be_one_file_are_refused(small, tmp_path):
    small.repositories[SMALL]["main"] = {"a.parquet": b"x", "A.parquet": b"y"}
    with pytest.raises(UnsafeInputError) as caught:
        plan_pool("small", tmp_path)
    assert str(caught.value) == f"{SMALL}: 'A.parquet' and 'a.parquet' would be one file; refused"


def test_small_files_have_gits_digests_and_empty_ones_none_of_their_bytes(small, tmp_path):
    small.repositories["a/b"] = {"main": {"x.txt": b"two words", "empty.txt": b""}}
    found = plan("a/b", tmp_path / "b", everything)
    assert {file.kind for file in found.wanted} == {"git"}
    carry_out(found)
    assert (tmp_path / "b" / "x.txt").read_bytes() == b"two words"
    assert (tmp_path / "b" / "empty.txt").read_bytes() == b""


def test_a_disk_without_room_is_told_before_it_starts(small, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(
        StorageError, match=r"0\.0 GB left; free some space or choose another place"
    ):
        carry_out(plan_pool("small", tmp_path / "s"))
    assert asked_files(small) == []


def test_two_at_once_are_not_mixed(small, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StorageError) as caught:
        carry_out(plan_pool("small", folder))
    assert str(caught.value) == (
        f"{folder}: another process is bringing files to it; wait for it or stop it"
    )
    os.close(held)
    carry_out(plan_pool("small", folder))


def test_killed_in_the_middle_it_goes_on(small, tmp_path):
    small.slow = 0.15
    folder = tmp_path / "small"
    words = [sys.executable, "-m", "datacomp.curate.cli", "pool", "download", "small", folder,
             "--features", "--yes", "-q"]  # fmt: skip
    run = {"env": os.environ | {"HF_ENDPOINT": small.address}, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(words, **run)
    record = folder / RECORD
    deadline = time.monotonic() + 60
    while not record.is_file() or len(record.read_bytes().splitlines()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {json.loads(line)["file"] for line in record.read_bytes().splitlines()[1:]}
    assert 2 <= len(done) < 10
    small.slow = 0
    small.asked.clear()
    assert subprocess.run(words, **run, check=False).returncode == 0
    again = {"metadata/" + path.rpartition("/")[2] for path in asked_files(small)}
    assert not done & again
    for name, data in small.repositories[SMALL]["main"].items():
        if name != "README.md":
            assert (folder / "metadata" / name).read_bytes() == data
    with Pool.open(folder / "pool.duckdb", read_only=True) as pool:
        assert pool.count() == 20
    http_client.close_connections()
