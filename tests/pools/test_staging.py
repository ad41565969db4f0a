from pathlib import Path

import duckdb
from datacomp.pools import staging
from datacomp.pools.columns import columns_of
from datacomp.pools.sources import Record, SetAside
from datacomp.pools.sources.base import RecordSource
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUE = st.one_of(st.integers(-(1 << 70), 1 << 70), st.floats(), st.booleans(), TEXT)


def staged(items, what):
    class Given(RecordSource):
        kind = "given"

        def records(self):
            yield from items

    with duckdb.connect() as connection:
        staging.create_tables(connection)
        staging.read_records(connection, Path("pool"), Given(Path(".")))
        return connection.execute(what).fetchall(), columns_of(connection, "incoming")


def record(number, **more):
    return Record(f"{number:032x}", None, "t", None, None, None, **more)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUE, min_size=1, max_size=6))
def test_values_of_one_kind_come_back_as_they_were(values):
    rows, types = staged(
        [record(i, extra={"v": value}) for i, value in enumerate(values)],
        "SELECT v FROM incoming ORDER BY _row",
    )
    kinds = {type(v) for v in values}
    if any(type(v) is int and not -(1 << 63) <= v < 1 << 63 for v in values):
        kinds |= {str}
    if len(kinds) == 1:
        expected = values
    elif kinds == {int, float}:
        expected = [float(v) for v in values]
    else:
        expected = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
    assert [repr(row[0]) for row in rows] == [repr(v) for v in expected]
    sql = {int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
    single = sql.get(kinds.copy().pop(), "VARCHAR") if len(kinds) == 1 else None
    assert types["v"] == (single or ("DOUBLE" if kinds == {int, float} else "VARCHAR"))


def test_rows_are_numbered_and_named():
    items = [record(7, item="i" * 300), SetAside("x", "bad"), record(3, shard="s"), record(1)]
    rows, _ = staged(items, "SELECT _row, _item, uid FROM incoming ORDER BY _row")
    assert rows == [(0, "i" * 200, 7), (1, "s", 3), (2, f"{1:032x}", 1)]
    rows, _ = staged(items, "FROM incoming_aside")
    assert rows == [("x", "bad", "")]
