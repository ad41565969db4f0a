"""Browsing: finding captions and neighbours, each against reading everything.

DATACOMP_BENCH_ROWS says how many samples there are (default 500,000).
"""

import os
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.browse.index import SAMPLE, file_of, prepare
from datacomp.curate.browse.lending import Lender
from datacomp.curate.browse.overview import overview_of
from datacomp.curate.browse.searching import Asked, count, search
from datacomp.pools import Pool
from datacomp.pools.features import Features
from datacomp.pools.neighbours import Sketches, build, nearest, vector_of
from datacomp.pools.sources import open_source

ROWS = int(os.environ.get("DATACOMP_BENCH_ROWS", "500000"))
DIMENSION = 512
NEIGHBOURS = 48


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool with captions and features that lie in clusters around a mean, as CLIP's do."""
    root = tmp_path_factory.mktemp("browse")
    folder = root / "metadata"
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = np.array(
        [
            "a",
            "Photo",
            "of",
            "red",
            "shoes",
            "FREE",
            "shipping",
            "kitchen",
            "IMG_01",
            "фото",
            "Straße",
            "写真",
        ]
    )
    centres = rng.standard_normal((max(1, ROWS // 200), DIMENSION), np.float32)
    files = 10
    for number in range(files):
        rows = ROWS // files
        near = centres[rng.integers(0, len(centres), rows)]
        noise = rng.standard_normal((rows, DIMENSION), np.float32)
        captions = words[rng.integers(0, len(words), (rows, 8))]
        pq.write_table(pa.table({
            "uid": [rng.bytes(16).hex() for _ in range(rows)],
            "text": [" ".join(caption) for caption in captions],
        }), folder / f"{number}.parquet")  # fmt: skip
        np.savez(folder / f"{number}.npz", img=(near + 0.7 * noise + 1).astype(np.float16))
    with Pool.create(root / "pool.duckdb") as made:
        made.add(open_source("commonpool", folder))
        yield made


def test_captions_that_hold_a_word(pool, paired):
    query = "SELECT count(*) FROM samples WHERE contains(lower(text), 'zebra')"
    ours, theirs = (lambda: count(pool, Asked(words="Zebra"))), (lambda: pool.scalar(query))
    assert ours() == theirs() == 0
    paired(f"look for a rare word in {ROWS:,} captions", ours, theirs, against="lower() of each")
    page = search(pool, Asked(words="SHOES kitchen"))
    assert len(page.rows) == NEIGHBOURS
    paired("the first page of common words", lambda: search(pool, Asked(words="SHOES kitchen")),
           theirs, against="looking through everything")  # fmt: skip


def test_the_index_of_a_pool(pool, paired, capsys):
    """Every kind of search with the index against the same without; at 12.8M each under 1 s."""
    pool.close()
    began = time.monotonic()
    assert prepare(pool.path, least=0)
    with capsys.disabled():
        size = file_of(pool.path).stat().st_size
        print(f"\nindex of {ROWS:,}: {time.monotonic() - began:.1f} s, {size / 1e6:,.0f} MB")
    lender = Lender(pool.path)
    try:
        with lender.pool(600) as lent:
            assert lender.indexed
            for asked in (
                Asked(words="zebra"), Asked(words="shoes kitchen", order="-caption"),
                Asked(words="zebra", order="-metadata_row"), Asked(order="caption"),
                Asked(words="free", where="metadata_row > 5", order="-metadata_row"),
            ):  # fmt: skip
                for ask in (search, count):
                    ours, theirs = (partial(ask, lent, asked, indexed=x) for x in (True, False))
                    assert ask is search or ours() == theirs()
                    paired(f"{ask.__name__} {asked}", ours, theirs, against="no index", rounds=3)
            paired("the overview", lambda: overview_of(lent, SAMPLE), lambda: overview_of(lent),
                   against="no index", rounds=3)  # fmt: skip
    finally:
        lender.close()
    pool.connection = Pool.open(pool.path).connection


def test_neighbours(pool, paired, capsys):
    build(pool, "img")
    features = Features(pool, "img")
    uids = [row[0] for row in pool.sql("SELECT uid FROM samples ORDER BY uid LIMIT 5").fetchall()]
    wanted = [vector_of(features, uid) for uid in uids]
    sketches = Sketches(pool.path, "img")
    found = 0
    for vector in wanted:
        rough = sketches.nearest(features, vector, NEIGHBOURS).uids.tolist()
        found += len(set(rough) & set(nearest(features, vector, NEIGHBOURS).uids.tolist()))
    share = found / (NEIGHBOURS * len(wanted))
    with capsys.disabled():
        print(f"\nof the {NEIGHBOURS} nearest, sketches find {share:.1%}")
    assert share > 0.9
    paired(
        f"{NEIGHBOURS} neighbours among {ROWS:,} by sketches",
        lambda: sketches.nearest(features, wanted[0], NEIGHBOURS),
        lambda: nearest(features, wanted[0], NEIGHBOURS),
        against="comparing with each", rounds=3,
    )  # fmt: skip
