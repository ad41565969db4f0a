"""Browsing: finding captions and neighbours, each against reading everything.

DATACOMP_BENCH_ROWS says how many samples there are (default 500,000); DATACOMP_BENCH_POOL names a
pool of CommonPool's metadata, ingested, that is asked every kind of question as the pages ask it,
features beside its metadata included.
"""

import os
import resource
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.browse.alike import Alike
from datacomp.curate.browse.app import Browse
from datacomp.curate.browse.index import SAMPLE, file_of, prepare
from datacomp.curate.browse.lending import Lender
from datacomp.curate.browse.overview import draw
from datacomp.curate.browse.searching import Asked, count, search
from datacomp.pools import Pool
from datacomp.pools.features import Features
from datacomp.pools.neighbours import Sketches, build, names_of, nearest, vector_of
from datacomp.pools.sources import open_source

ROWS = int(os.environ.get("DATACOMP_BENCH_ROWS", "500000"))
GIVEN = os.environ.get("DATACOMP_BENCH_POOL")
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
            paired("the drawing of the overview", lambda: draw(lent, SAMPLE), lambda: draw(lent),
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


def test_sketches_and_faiss(pool, paired, capsys):
    """The same question to faiss: the same codes, and its own best one of the same size."""
    faiss = pytest.importorskip("faiss")
    build(pool, "img")
    features, sketches = Features(pool, "img"), Sketches(pool.path, "img")
    found = list(features.batches())
    uids = np.concatenate([one for one, _ in found])
    vectors = np.concatenate([one for _, one in found])
    wanted = vectors[:5].astype(np.float32)
    codes = np.ascontiguousarray(sketches._codes).view(np.uint8)
    binary = faiss.IndexBinaryFlat(codes.shape[1] * 8)
    binary.add(codes)
    began = time.process_time()
    rabitq = faiss.index_factory(DIMENSION, "RaBitQ", faiss.METRIC_INNER_PRODUCT)
    rabitq.train(vectors[::10].astype(np.float32))
    for first in range(0, len(vectors), 1 << 16):
        rabitq.add(vectors[first : first + (1 << 16)].astype(np.float32))
    made, began = time.process_time() - began, time.process_time()
    build(pool, "img")
    ours_made = time.process_time() - began
    share = {"sketches": 0, "RaBitQ": 0}
    for vector in wanted:
        true = {uid.tobytes() for uid in nearest(features, vector, NEIGHBOURS).uids}
        ours = sketches.nearest(features, vector, NEIGHBOURS).uids
        theirs = uids[rabitq.search(vector[None], 4096)[1][0]]
        share["sketches"] += len(true & {uid.tobytes() for uid in ours})
        share["RaBitQ"] += len(true & {uid.tobytes() for uid in theirs})
    with capsys.disabled():
        print(f"\nprocessor to build: sketches {ours_made:.1f} s, RaBitQ {made:.1f} s")
        for name, count in share.items():
            print(
                f"of the {NEIGHBOURS} nearest, {name} find {count / NEIGHBOURS / len(wanted):.1%}"
            )
    code = codes[:1].view(np.uint64)[0]
    paired(
        f"the 4,096 nearest of {len(codes):,} sketches", lambda: sketches._nearest_sketches(code),
        lambda: binary.search(codes[:1], 4096), against="faiss.IndexBinaryFlat",
    )  # fmt: skip
    paired(
        f"{NEIGHBOURS} neighbours of {len(codes):,}",
        lambda: sketches.nearest(features, wanted[0], NEIGHBOURS),
        lambda: rabitq.search(wanted[:1], 4096), against="faiss's RaBitQ, not compared exactly",
    )  # fmt: skip


SCORE = "clip_l14_similarity_score"
QUESTIONS = (
    {}, {"words": "zebra"}, {"words": "tion"}, {"words": "ingtion oning"}, {"words": "クス"},
    {"words": "zebra", "order": "-caption"}, {"words": "oning", "order": f"-{SCORE}"},
    {"words": "oning", "order": "random", "seed": 2}, {"order": f"-{SCORE}"}, {"order": "caption"},
    {"order": "aspect"}, {"order": "-width"}, {"order": "random", "seed": 3}, {"order": "url"},
    {"where": f"{SCORE} > 0.3 AND width > 1000"}, {"where": f"{SCORE} > 0.3", "order": "-width"},
    {"where": "url LIKE '%pinimg%'"}, {"where": "url LIKE '%pinimg%'", "order": f"-{SCORE}"},
    {"where": "text LIKE '%oning%'", "order": f"-{SCORE}"},
    {"where": "text ILIKE '%oning%'", "order": f"-{SCORE}"},
    {"where": "regexp_matches(text, '^oning .*tion$')", "order": "-width"},
    {"where": "length(text) > 100", "order": f"-{SCORE}"},
    {"where": "sha256 LIKE 'abcd%'"}, {"where": "len(face_bboxes) > 3", "order": "-width"},
    {"words": "oning", "where": "url LIKE '%pinimg%'", "order": f"-{SCORE}"},
)  # fmt: skip
STATEMENTS = (
    "SELECT count(*) FROM samples", f"SELECT avg({SCORE}), min(width), max(width) FROM samples",
    "SELECT width, count(*) FROM samples GROUP BY width ORDER BY 2 DESC",
    f"SELECT uid, text FROM samples ORDER BY {SCORE} DESC LIMIT 50",
    "SELECT count(*) FROM samples WHERE text LIKE '%oning%'",
    "SELECT count(*) FROM samples WHERE url LIKE '%pinimg%'",
)  # fmt: skip


@pytest.mark.timeout(0)
@pytest.mark.skipif(not GIVEN, reason="DATACOMP_BENCH_POOL names no pool")
def test_every_kind_of_question(capsys):
    """Wall and processor seconds of each page, the median of three after the first."""
    path = Path(GIVEN or "")

    def used():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def timed(ask):
        began, before = time.perf_counter(), used()
        ask()
        return time.perf_counter() - began, used() - before

    made = timed(lambda: prepare(path, memory_limit="1GB"))
    with Pool.open(path, read_only=True, confined=True) as pool:
        names = names_of(pool)
        uid = pool.scalar("SELECT printf('%032x', uid) FROM samples LIMIT 1 OFFSET 1000000")
        sketched = timed(lambda: [build(pool, name) for name in names])
    lender = Lender(path)
    browse = Browse(lender, Alike(None), 600)
    with lender.pool(600):
        assert lender.indexed
    asked = {f"search {one}": partial(browse.samples, Asked(**one)) for one in QUESTIONS}
    asked |= {f"count {one}": partial(browse.count, Asked(**one)) for one in QUESTIONS
              if "words" in one or "where" in one}  # fmt: skip
    asked |= {f"sql {one}": partial(browse.sql, one) for one in STATEMENTS}
    asked |= {f"alike by {one}": partial(browse.like_sample, uid, one) for one in names}
    asked["sample"] = partial(browse.sample, uid)
    rows = {"the overview, first": [timed(browse.overview)]}
    for name, ask in asked.items():
        rows[name] = [timed(ask) for _ in range(4)]
    browse.lender.close()
    with capsys.disabled():
        size = file_of(path).stat().st_size
        print(f"\nindex: {made[0]:.1f} s, {made[1]:.1f} s of processor, {size / 1e6:,.0f} MB")
        print(f"sketches of {names}: {sketched[0]:.1f} s, {sketched[1]:.1f} s of processor")
        for name, times in rows.items():
            wall, processor = sorted(times[1:] or times)[len(times[1:]) // 2]
            print(
                f"{wall:6.3f} s (first {times[0][0]:6.3f}), {processor:6.3f} of processor: {name}"
            )
