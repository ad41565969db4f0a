"""What the tests of pools share: sources made of records, an empty pool, a way to look at one."""

import pytest
from datacomp.pools import Pool
from datacomp.pools.sources import Record
from datacomp.pools.sources.base import RecordSource


class Given(RecordSource):
    """A source of records made by the test."""

    kind = "given"
    items = ()

    def records(self):
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


@pytest.fixture
def record():
    """Return a maker of records: the uid is the number."""

    def record(number, text="t", at=None, shard="s", item=None, width=1, sha256=None, **extra):
        at = number % 1000 if at is None else at
        return Record(f"{number:032x}", None, text, width, 2, sha256, shard, at, 1, extra, item)

    return record


@pytest.fixture
def given():
    """Return a maker of sources: at a path, with these records; an exception is raised there."""

    def given(path, *items):
        source = Given(path)
        object.__setattr__(source, "items", items)
        return source

    return given


@pytest.fixture
def empty(tmp_path):
    with Pool.create(tmp_path / "pool.duckdb") as made:
        yield made


@pytest.fixture
def rows():
    """Return a way to look at the samples of a pool in the order of their uids."""

    def rows(pool, what):
        return pool.sql(f"SELECT {what} FROM samples ORDER BY uid").fetchall()

    return rows


@pytest.fixture
def aside():
    """Return a way to look at what was set aside, in the order it was listed."""

    def aside(pool, what="source, item, reason, detail"):
        return pool.sql(f"SELECT {what} FROM set_aside ORDER BY source, rowid").fetchall()

    return aside
