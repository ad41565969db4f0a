"""Metadata, features and subsets in an S3 store: the bytes of a local run, through trouble too."""

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.selection import select, select_remote
from datacomp.errors import DataError, MissingError, RunError, StorageError
from datacomp.filters import partitioned
from datacomp.filters.expression import parse_all
from datacomp.pools import Pool, patience
from datacomp.pools.engine import Local
from datacomp.pools.partitions import partitions_of
from datacomp.pools.remote import remote_metadata
from datacomp.pools.stores import download, upload

PLACE = "s3://bucket/pool/metadata"
SPECS = ["exact_dedup:by=caption", "random_subset:fraction=0.9"]
ON_FEATURES = ["ssl_prototypes:clusters=2,fraction=0.5"]


@pytest.fixture
def folder(commonpool, tmp_path):
    """Metadata of two parts, with the same captions in all files."""
    text = [f"a caption of the number {n % 27}" for n in range(30)]
    for number, part in enumerate(("part_00", "part_01")):
        commonpool(tmp_path / "pool" / part, files=2, rows=30, first=number * 60, text=text)
    return tmp_path / "pool"


@pytest.fixture
def bucket(folder, s3):
    """The same in a bucket, with what does not belong there."""
    client = s3.client()
    for path in folder.rglob("*.*"):
        name = f"pool/metadata/{path.relative_to(folder).as_posix()}"
        client.upload_file(str(path), "bucket", name)
    for stray in ("readme.txt", ".hidden.parquet", "other/x.parquet"):
        client.put_object(Bucket="bucket", Key=f"pool/metadata/{stray}", Body=b"no")
    yield client
    client.close()


def test_a_pool_in_a_bucket_is_judged_like_a_folder(folder, bucket, s3, tmp_path, command):
    for specs in (SPECS, ON_FEATURES):
        out = tmp_path / "out.npy"
        with Pool.open(folder) as pool:
            select(pool, parse_all(specs).filters, out, reasons=tmp_path / "why.parquet")
        code, _, errors = command(
            "filter", "run", PLACE, *specs, "-o", "s3://bucket/out.npy",
            "--reasons", "s3://bucket/why.parquet", "--workers", "1",
        )  # fmt: skip
        assert code == 0, errors
        for name in ("out.npy", "out.json", "why.parquet"):
            found = bucket.get_object(Bucket="bucket", Key=name)["Body"].read()
            assert found == (tmp_path / name).read_bytes()
        assert len(np.load(out)) > 15
    asked = [line for line in s3.asked if ".npz" in line]
    s3.asked.clear()
    select_remote(PLACE, parse_all(SPECS).filters, tmp_path / "again.npy", engine=Local(1))
    assert asked
    assert not [line for line in s3.asked if ".npz" in line]  # features, only if asked for


WIDE = """
from datacomp.filters import Decision, Filter

class Wide(Filter):
    "Keep what is at least as wide as the mean."
    set_level = True
    def decide(self, view):
        mean = view.scalar(f"SELECT avg(original_width)::INTEGER FROM {view.relation}")
        return [Decision("narrow", f"original_width >= {mean}")]
"""


def test_what_is_judged_as_a_whole_is_copied_as_a_whole(folder, bucket, tmp_path):
    (tmp_path / "own.py").write_text(WIDE)
    filters = parse_all([f"{tmp_path / 'own.py'}:Wide", "caption_length"]).filters
    with Pool.open(folder) as pool:
        select(pool, filters, tmp_path / "here.npy")
    select_remote(PLACE, filters, tmp_path / "there.npy", engine=Local(1))
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()


def test_files_that_were_judged_are_judged_again_only_if_the_store_has_others(
    folder, bucket, s3, tmp_path, monkeypatch
):  # fmt: skip
    """What stands for them here has another name each time."""
    filters, out = parse_all(["caption_length"]).filters, tmp_path / "there.npy"

    def gone(*_):
        raise RunError("the machine went away")

    def copied():
        """Run once more; return how many files were copied: their footers are read in two parts."""
        s3.asked.clear()
        with contextlib.suppress(RunError):
            select_remote(PLACE, filters, out, engine=Local(1))
        return sum("GET" in line and ".parquet" in line for line in s3.asked) - 2 * 4

    with monkeypatch.context() as patch:
        patch.setattr(partitioned, "merge_subsets", gone)
        assert (copied(), copied()) == (4, 0)
        features = min(folder.rglob("*.npz")).relative_to(folder)
        bucket.put_object(Bucket="bucket", Key=f"pool/metadata/{features}", Body=b"others")
        assert (copied(), copied()) == (4, 0)
    assert copied() == 0
    with Pool.open(folder) as pool:
        select(pool, filters, tmp_path / "here.npy")
    assert out.read_bytes() == (tmp_path / "here.npy").read_bytes()


def test_a_file_that_changes_between_two_rounds_is_told(bucket):
    with remote_metadata(PLACE) as remote, Pool.open(remote.footers) as pool:
        partitions = partitions_of(pool)
        for partition, suffix in zip(partitions, (".parquet", ".npz"), strict=False):
            with remote.fetched(partition, True) as here:
                changed = here.file.with_suffix(suffix)
                data = bytearray(changed.read_bytes())
            data[9] ^= 1
            key = f"pool/metadata/{changed.relative_to(here.root).as_posix()}"
            bucket.put_object(Bucket="bucket", Key=key, Body=bytes(data))
            told = f"^s3://bucket/{key}: changed while it was read; run the same command again$"
            with pytest.raises(DataError, match=told), remote.fetched(partition, True):
                pass
        with remote.fetched(partitions[2], False) as here:
            assert not here.file.with_suffix(".npz").exists()


def test_what_is_no_metadata_is_told(bucket, tmp_path):
    filters = parse_all(SPECS).filters
    with pytest.raises(MissingError, match=r"^s3://bucket/nothing: no such folder$"):
        select_remote("s3://bucket/nothing", filters, tmp_path / "a.npy")
    bucket.put_object(Bucket="bucket", Key="bad/x.parquet", Body=b"no parquet at all")
    with pytest.raises(DataError, match=r"^s3://bucket/bad/x.parquet: not a parquet file$"):
        select_remote("s3://bucket/bad", filters, tmp_path / "a.npy")
    with pytest.raises(StorageError, match=r"^s3://nobucket/a.npy: cannot be written: no such buc"):
        select_remote(PLACE, filters, "s3://nobucket/a.npy", engine=Local(1))


# -- trouble ---------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Pauses that are noted, and not made."""
    pauses = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    return pauses


def test_a_store_in_trouble_is_asked_again(folder, bucket, throttle, quick, tmp_path):
    """Each request fails twice first: throttled, then cut or dropped."""
    tried = {}

    def trouble(method, path):
        count = tried[method, path] = tried.get((method, path), 0) + 1
        return {1: "throttle", 2: "drop" if method != "GET" else "cut"}.get(count)

    throttle.trouble = trouble
    with Pool.open(folder) as pool:
        select(pool, parse_all(SPECS).filters, tmp_path / "here.npy")
    select_remote(PLACE, parse_all(SPECS).filters, "s3://bucket/there.npy", engine=Local(1))
    found = bucket.get_object(Bucket="bucket", Key="there.npy")["Body"].read()
    assert found == (tmp_path / "here.npy").read_bytes()
    kinds = {(method, trouble) for method, _, trouble in throttle.seen}
    assert {("GET", "throttle"), ("GET", "cut"), ("PUT", "throttle"), ("PUT", "drop")} <= kinds
    assert len(quick) > 10


@pytest.mark.parametrize("kind", ["throttle", "drop", "cut"])
def test_a_store_that_stays_in_trouble_is_one_line(bucket, throttle, quick, command, kind):
    throttle.trouble = lambda method, path: kind if "part_01" in path else None
    code, _, errors = command(
        "filter", "run", PLACE, *SPECS, "-o", "s3://bucket/out.npy", "--workers", "1"
    )
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"{PLACE}/part_01/0" in errors
    assert f"cannot be read, tried {patience.TRIES} times: " in errors
    if kind == "throttle":
        assert "Service Unavailable" in errors or "reduce your request rate" in errors
    assert sorted(set(quick)) == [0.25, 0.5, 1, 2, 4]
    assert "out.npy" not in str(bucket.list_objects_v2(Bucket="bucket"))


def test_an_upload_that_never_works_is_one_line(bucket, throttle, quick, tmp_path):
    throttle.trouble = lambda method, path: "throttle" if method == "PUT" else None
    (tmp_path / "file").write_bytes(b"some")
    with pytest.raises(StorageError, match=r"^s3://bucket/file: cannot be written, tried 6 times"):
        upload(tmp_path / "file", "s3://bucket/file")


def test_what_is_refused_for_good_is_not_asked_again(bucket, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "passes", lambda error: False)
    with pytest.raises(MissingError, match=r"s3://bucket/none: no such file"):
        download("s3://bucket/none", tmp_path / "none")
    assert not quick


def test_a_file_of_odd_types_keeps_its_name(bucket, tmp_path):
    """The name of a pool is that of its footers, whatever wrote them."""
    table = pa.table({
        "uid": pa.array([f"{n:032x}" for n in range(5)], pa.large_string()),
        "text": pa.array(["a"] * 5, pa.large_string()),
        "when": pa.array([1] * 5, pa.timestamp("ns")),
    })  # fmt: skip
    (tmp_path / "odd").mkdir()
    pq.write_table(table, tmp_path / "odd" / "x.parquet")
    bucket.upload_file(str(tmp_path / "odd" / "x.parquet"), "bucket", "odd/x.parquet")
    filters = parse_all(["no_filter"]).filters
    with Pool.open(tmp_path / "odd") as pool:
        here = select(pool, filters, tmp_path / "here.npy").sidecar
    assert (
        select_remote("s3://bucket/odd", filters, tmp_path / "there.npy", engine=Local(1)).sidecar
        == here
    )


@pytest.mark.parametrize(
    "words", [["pool", "create", "s3://b/x"], ["train", "s3://b/a.view", "-o", "s3://b/runs"]]
)
def test_what_must_be_on_a_file_system_is_refused_in_a_store(words, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command(*words)
    assert code == 2
    assert f"{words[-1]} is in an object store, but must be on a file system" in errors
    assert not [*tmp_path.iterdir()]


def test_what_a_filter_reads_must_be_on_a_file_system(tmp_path, monkeypatch, command, folder):
    monkeypatch.chdir(tmp_path)
    use = "clip_score:checkpoint=s3://b/x.pt,fraction=0.3"
    code, _, errors = command("filter", "run", folder, use, "-o", "a.npy")
    assert (code, errors) == (
        2, "error: filter clip_score: checkpoint is 's3://b/x.pt', a URL; expected a path on a "
        "file system\n",
    )  # fmt: skip
