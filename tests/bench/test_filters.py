"""The cheap rules over a pool: the engine against DuckDB's bare scan of the same predicates."""

import duckdb
import pytest
from datacomp.filters import parse, run_filters
from datacomp.filters.basic import WORDS
from datacomp.pools import Pool

ROWS = 1_000_000


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.sql(
            "INSERT INTO samples (uid, url, text, width, height) SELECT "
            "('0x' || md5(i::VARCHAR))::UHUGEINT, 'u' || i, "
            "repeat('word ', 1 + (hash(i) % 8)::INTEGER), 100 + (hash(i + 1) % 900)::INTEGER, "
            f"100 + (hash(i + 2) % 900)::INTEGER FROM range({ROWS}) t(i)"
        )
        yield pool


def test_caption_and_size_rules(pool, paired):
    specs = [parse("caption_length"), parse("image_size")]
    predicate = (
        f"{WORDS} >= 3 AND length(text) >= 6 AND least(width, height) >= 200 "
        "AND greatest(width, height) / least(width, height)::DOUBLE <= 3.0"
    )

    def ours():
        return len(run_filters(pool, specs).uids)

    def bare():
        query = f"SELECT count(*) FROM samples WHERE {predicate}"
        rows = pool.connection.execute(query).fetchall()
        return rows[0][0]

    assert isinstance(pool.connection, duckdb.DuckDBPyConnection)
    assert ours() == bare()
    paired(f"caption and size rules on {ROWS:,} rows", ours, bare, against="bare scan and count")
