import math

import pyarrow as pa
import pytest
from datacomp.filters import parse, run_filters
from datacomp.filters.basic import CaptionLength, has_words
from datacomp.filters.contract import sql_number
from datacomp.pools.uids import to_hex
from hypothesis import example, given, settings
from hypothesis import strategies as st

SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_SPACES = "\u180e\u200b\u200d\ufeff\0"
CHARACTER = st.sampled_from(SPACES + NOT_SPACES + "aé漢🤦\u0301") | st.characters(
    exclude_categories=["Cs"]
)
TEXTS = st.lists(st.text(CHARACTER, max_size=12), min_size=1, max_size=8)
SIDES = (
    st.none()
    | st.sampled_from([0, 1, 66, 199, 200, 201, 600, 601, 2**31 - 1])
    | st.integers(0, 2000)
)


@pytest.fixture(scope="module")
def connection():
    import duckdb

    with duckdb.connect() as connection:
        yield connection


def kept(pool, text):
    return [int(uid, 16) for uid in to_hex(run_filters(pool, [parse(text)]).uids)]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(list(SPACES) + [f"a{c}b" for c in SPACES + NOT_SPACES])
@example(
    ["", "👨‍👩‍👧", "e\u0301" * 3, "a b c", "a " * 100, "a " * 99 + "a", "a " * 101, "a\n" * 99]
)
def test_words_and_characters_are_counted_as_python_does(connection, texts):
    connection.register("t", pa.table({"text": texts}))
    limits = (0, 1, 2, 3, 4, 7, 100, 101)
    counted = ", ".join(map(has_words, limits))
    found = connection.execute(f"SELECT length(text), {counted} FROM t").fetchall()
    assert found == [
        (len(text), *(len(text.split()) >= limit for limit in limits)) for text in texts
    ]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_the_caption_rule_is_datacomps(connection, texts):
    connection.register("t", pa.table({"text": texts}))
    for exact in (True, False):
        rules = CaptionLength(exact=exact).decide(None)
        query = f"SELECT {' AND '.join(f'({rule.predicate})' for rule in rules)} FROM t"
        found = [row[0] for row in connection.execute(query).fetchall()]
        assert found == [
            len(text.split()) > 2 and len(text if exact else text.strip()) > 5 for text in texts
        ]


@settings(max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_numbers_read_back_exactly(connection, value):
    found = connection.execute(f"SELECT {sql_number(value)}").fetchall()[0][0]
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)


def aspect_kept(width, height, side=200, aspect=3.0):
    """Apply DataComp's rule in numpy's float64, where a division by zero is no number."""
    if width is None or height is None:
        return False
    small, large = min(width, height), max(width, height)
    return small >= side and small > 0 and large / small <= aspect


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES), min_size=1, max_size=30), st.data())
def test_the_image_rule_is_datacomps(sizes, data):
    import tempfile
    from pathlib import Path

    import pyarrow.parquet as pq
    from datacomp.pools import Pool
    from datacomp.pools.sources import open_source

    side = data.draw(st.sampled_from([0, 1, 200]))
    aspect = data.draw(st.sampled_from([1, 1.5, 3.0, 3.005]))
    names = ("width", "height", "original_width", "original_height")
    columns = {n: pa.array([s[i] for s in sizes], pa.int64()) for i, n in enumerate(names)}
    columns |= {
        "uid": [f"{i:032x}" for i in range(len(sizes))], "url": ["u"] * len(sizes),
        "text": ["t"] * len(sizes),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(columns), f"{folder}/t.parquet")
        with Pool.create(Path(folder) / "p") as pool:
            pool.add(open_source("parquet", f"{folder}/t.parquet"))
            found = kept(pool, f"image_size:min_side={side},max_aspect={aspect}")
    expected = []
    for i, (width, height, first_width, first_height) in enumerate(sizes):
        if first_width is not None and first_height is not None:
            width, height = first_width, first_height  # noqa: PLW2901
        if aspect_kept(width, height, side, aspect):
            expected.append(i)
    assert found == expected


def test_basic_filter_is_its_three_rules(pool_of):
    good = "a photo of a brown dog on the beach"
    texts = [good, "two words", "a b c", "ein Foto von einem braunen Hund am Strand", good, good]
    pool = pool_of(text=texts, width=[300, 300, 300, 300, 199, 700], height=[300] * 4 + [300, 200])
    chosen = run_filters(pool, [parse("basic_filter")])
    assert to_hex(chosen.uids) == [f"{0:032x}"]
    assert chosen.funnel() == [
        {"filter": "basic_filter", "before": 6, "after": 1,
         "reasons": {"few_words": 1, "few_characters": 1, "language": 1, "too_small": 1,
                     "extreme_aspect": 1}},
    ]  # fmt: skip


def test_only_what_passes_the_cheap_rules_is_scored(pool_of):
    pool = pool_of(text=["a photo of a dog", "two words"] * 3, width=[300] * 6, height=[300] * 6)
    run_filters(pool, [parse("basic_filter")])
    assert pool.scalar("SELECT count(*) FROM score_values_1") == 3
    run_filters(pool, [parse("language")])
    assert pool.scalar("SELECT count(*) FROM score_values_1") == 6
    assert pool.scalar("SELECT count(DISTINCT uid) FROM score_values_1") == 6


def test_sizes_known_by_half_are_not_known(pool_of):
    pool = pool_of(width=[300, None, 300, None], height=[300, 300, None, None])
    assert kept(pool, "image_size") == [0]
    assert kept(pool, "no_filter") == [0, 1, 2, 3]
