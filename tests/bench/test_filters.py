"""The engine against DuckDB's bare scan of the same rules; languages against fastText's library."""

import random

import duckdb
import pyarrow as pa
import pytest
from datacomp.filters import parse, run_filters
from datacomp.filters.basic import has_words
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
        f"{has_words(3)} AND length(text) >= 6 AND least(width, height) >= 200 "
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


CAPTIONS = 100_000


def test_languages(paired):
    """Zipf's law, as in real captions: a few words are frequent, most are seen once or twice."""
    import fasttext
    from datacomp.filters.fasttext_fast import FastLabels
    from datacomp.filters.fasttext_model import read_model
    from datacomp.filters.language import embedded_model

    draw = random.Random(0)
    letters = "eeeettaaooiinnsshhrrddlcumwfgypbvk"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 11))) for _ in range(200_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    drawn = iter(draw.choices(words, weights=weights, k=CAPTIONS * 15))
    texts = [" ".join(next(drawn) for _ in range(draw.randint(3, 14))) for _ in range(CAPTIONS)]
    library = fasttext.load_model(str(embedded_model()))
    model = read_model(embedded_model())
    assert model is not None
    column = pa.chunked_array([texts])

    def ours():
        return FastLabels(model, library).labels(column).to_pylist()

    def other():
        return [library.predict(text)[0][0].removeprefix("__label__") for text in texts]

    assert ours() == other()
    paired(f"languages of {CAPTIONS:,} captions", ours, other, against="the library", rounds=3)
