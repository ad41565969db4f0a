"""Pools of metadata: add, link and read features, each against the least there is to do.

DATACOMP_BENCH_ROWS says how many rows there are (default 500,000; CommonPool's small has
12,800,000); DATACOMP_BENCH_METADATA names a folder of metadata to read instead, and
DATACOMP_BENCH_ROUNDS how often both add it (default 3).
"""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.pools import Pool
from datacomp.pools.features import Features
from datacomp.pools.sources import open_source

ROWS = int(os.environ.get("DATACOMP_BENCH_ROWS", "500000"))
GIVEN = os.environ.get("DATACOMP_BENCH_METADATA")
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "3"))
FILES = 25
MEMORY = "1GB"

COLUMNS = (
    "uid, url, text, original_width, original_height, clip_b32_similarity_score, "
    "clip_l14_similarity_score, face_bboxes, sha256"
)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """A folder of metadata in CommonPool's layout: uids, URLs and digests that do not compress."""
    if GIVEN:
        return Path(GIVEN)
    folder = tmp_path_factory.mktemp("metadata")
    rng = np.random.default_rng(0)
    words = np.array(["a", "photo", "of", "red", "shoes", "free", "shipping", "kitchen", "IMG_01"])
    for number in range(FILES):
        rows = ROWS // FILES
        uids = [rng.bytes(16).hex() for _ in range(rows)]
        captions = words[rng.integers(0, len(words), (rows, 8))]
        scores = rng.normal(0.2, 0.05, rows).astype(np.float16).astype(np.float32)
        table = {
            "uid": uids,
            "url": [f"https://i.pinimg.com/736x/{rng.bytes(24).hex()}.jpg" for _ in range(rows)],
            "text": [" ".join(caption) for caption in captions],
            "original_width": rng.integers(16, 3000, rows),
            "original_height": rng.integers(16, 3000, rows),
            "clip_b32_similarity_score": scores,
            "clip_l14_similarity_score": scores,
            "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]] if i % 4 == 0 else [] for i in range(rows)],
            "sha256": [rng.bytes(32).hex() for _ in range(rows)],
        }
        pq.write_table(pa.table(table), folder / f"{number:032x}.parquet")
    return folder


@pytest.fixture(scope="module")
def rows(metadata):
    return sum(pq.read_metadata(path).num_rows for path in metadata.glob("*.parquet"))


def remove(*paths):
    for path in paths:
        path.unlink(missing_ok=True)


def test_adding_metadata(metadata, rows, tmp_path, paired):
    ours_at, bare_at = tmp_path / "ours.duckdb", tmp_path / "bare.duckdb"

    def ours():
        remove(ours_at)
        with Pool.create(ours_at, memory_limit=MEMORY) as pool:
            assert pool.add(open_source("commonpool", metadata)).added == rows

    def bare():
        remove(bare_at)
        with duckdb.connect(str(bare_at), config={"memory_limit": MEMORY}) as connection:
            made = connection.execute(
                f"CREATE TABLE samples AS SELECT {COLUMNS} FROM '{metadata}/*.parquet'"
            ).fetchall()
            assert made == [(rows,)]

    paired(
        f"add {rows:,} rows of metadata, uids checked", ours, bare,
        against="DuckDB's CREATE TABLE AS", rounds=ROUNDS,
    )  # fmt: skip


def test_memory_of_adding(metadata, rows, tmp_path, capsys):
    body = (
        "from datacomp.curate.cli import main\n"
        "try: main()\n"  # getrusage's peak is at least that of the process that began this one
        "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    path = tmp_path / "pool.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", body, "pool", "add", path, metadata, "--memory", MEMORY],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{rows:,} added" in done.stdout
    peak = int(done.stdout.splitlines()[-1]) * 1024
    with capsys.disabled():
        print(f"\nadd {rows:,} rows with --memory {MEMORY}: peak {peak / 1e9:.2f} GB resident")


def test_linking_metadata(metadata, rows, paired):
    files = sorted(metadata.glob("*.parquet"))

    def ours():
        with Pool.open(metadata) as pool:
            return pool.count()

    def footers():
        return sum(pq.read_metadata(path).num_rows for path in files)

    assert ours() == footers() == rows
    paired(f"open {len(files)} files of metadata as a pool", ours, footers,
           against="reading their footers")  # fmt: skip


def test_reading_features(tmp_path, paired):
    count, dimension = 40_000, 768
    rng = np.random.default_rng(0)
    for number in range(2):
        uids = [rng.bytes(16).hex() for _ in range(count)]
        pq.write_table(pa.table({"uid": uids}), tmp_path / f"{number}.parquet")
        array = rng.standard_normal((count, dimension), np.float32).astype(np.float16)
        np.savez(tmp_path / f"{number}.npz", l14_img=array)

    def ours():
        with Pool.open(tmp_path) as pool:
            batches = Features(pool, "l14_img").batches()
            return sum(int(vectors[:, 0].view(np.uint16).sum()) for _, vectors in batches)

    def whole():
        total = 0
        for number in range(2):
            with np.load(tmp_path / f"{number}.npz") as arrays:
                total += int(arrays["l14_img"][:, 0].view(np.uint16).sum())
        return total

    assert ours() == whole()
    paired(f"read {2 * count:,} features of 768", ours, whole, against="np.load, all in memory")
