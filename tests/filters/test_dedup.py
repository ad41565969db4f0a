import pytest
from datacomp.filters import parse, run_filters
from datacomp.pools.uids import to_hex
from hypothesis import given, settings
from hypothesis import strategies as st


def kept(pool, text):
    return [int(uid, 16) for uid in to_hex(run_filters(pool, [parse(text)]).uids)]


@pytest.mark.parametrize(
    ("by", "expected"), [("image", [0, 2, 4, 5]), ("caption", [0, 1, 4]), ("both", [0, 1, 2, 4, 5])]
)
def test_the_smallest_uid_of_each_kind_stays(pool_of, by, expected):
    pool = pool_of(text=["a", "b", "a", "b", "c", "c"], sha256=["x", "x", "y", "x", None, None])
    assert kept(pool, f"exact_dedup:by={by}") == expected
    assert kept(pool, "exact_dedup") == kept(pool, "exact_dedup:by=image")


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**128 - 1), st.sampled_from("xyz")),
                unique_by=lambda p: p[0],
                min_size=1, max_size=30))  # fmt: skip
def test_order_does_not_matter(pairs):
    import tempfile
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from datacomp.pools import Pool
    from datacomp.pools.sources import open_source

    table = pa.table({
        "uid": [f"{n:032x}" for n, _ in pairs], "url": ["u"] * len(pairs),
        "text": ["t"] * len(pairs), "sha256": [s for _, s in pairs],
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, f"{folder}/t.parquet")
        with Pool.create(Path(folder) / "p") as pool:
            pool.add(open_source("parquet", f"{folder}/t.parquet"))
            found = kept(pool, "exact_dedup")
    assert found == sorted(min(n for n, s in pairs if s == kind) for kind in {s for _, s in pairs})
