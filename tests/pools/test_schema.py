import os

import duckdb
import pytest
from datacomp.errors import DataError
from datacomp.pools import Pool, schema
from datacomp.pools.asking import query


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        schema.create(connection)
        yield connection


def test_every_version_has_a_way_to_the_next():
    assert set(schema.MIGRATIONS) == set(range(1, schema.VERSION))


def test_a_new_pool_is_of_the_current_version(connection):
    assert schema.version_of(connection, "x") == schema.VERSION
    columns = {row[0]: row[1] for row in connection.execute("DESCRIBE samples").fetchall()}
    assert columns == schema.CORE_COLUMNS


def test_older_pools_are_brought_up_to_date_step_by_step(connection):
    steps = {
        schema.VERSION: "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1)",
        schema.VERSION + 1: "ALTER TABLE a RENAME x TO y",
    }
    schema.migrate(connection, "x", steps, schema.VERSION + 2)
    assert connection.execute("SELECT y FROM a").fetchall() == [(1,)]
    assert schema.version_of(connection, "x") == schema.VERSION + 2
    schema.migrate(connection, "x", steps, schema.VERSION + 2)
    assert connection.execute("SELECT y FROM a").fetchall() == [(1,)]


def test_a_step_that_fails_changes_nothing(connection):
    steps = {
        schema.VERSION: "CREATE TABLE a (x INTEGER)",
        schema.VERSION + 1: "CREATE TABLE b (x INTEGER); SELECT nonsense",
    }
    with pytest.raises(duckdb.Error):
        schema.migrate(connection, "x", steps, schema.VERSION + 2)
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    assert "a" in tables
    assert "b" not in tables
    assert schema.version_of(connection, "x") == schema.VERSION + 1


@pytest.mark.parametrize("read_only", [True, False])
def test_a_pool_of_a_later_version_is_refused(tmp_path, read_only):
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.sql("UPDATE pool SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(DataError) as caught:
        Pool.open(path, read_only)
    assert str(caught.value) == (
        f"{path}: pool of schema version 99, but this datacomp knows up to {schema.VERSION}; "
        "update datacomp"
    )


@pytest.mark.parametrize("way", ["write", "read", "query"])
def test_an_older_pool_is_brought_up_to_date_when_it_is_opened(tmp_path, way):
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.sql("CREATE TABLE runs (command VARCHAR)")
        pool.sql("UPDATE pool SET value = '1' WHERE key = 'schema_version'")
    if way == "query":
        query(path, "FROM samples").close()
    else:
        Pool.open(path, read_only=way == "read").close()
    with Pool.open(path, read_only=True) as pool:
        assert schema.version_of(pool.connection, "x") == schema.VERSION
        assert ("runs",) not in pool.sql("SHOW TABLES").fetchall()
        with pytest.raises(DataError, match="read-only"):
            pool.sql("DELETE FROM samples")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_version_that_never_was_is_refused(tmp_path, read_only):
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.sql("UPDATE pool SET value = '0' WHERE key = 'schema_version'")
    with pytest.raises(DataError) as caught:
        Pool.open(path, read_only)
    assert str(caught.value) == f"{path}: pool of schema version 0, which no datacomp made"


@pytest.mark.parametrize(
    "statement", [None, "CREATE TABLE pool (key VARCHAR, value VARCHAR)",
                  "CREATE TABLE pool AS SELECT 'schema_version' AS key, 'x' AS value"],
)  # fmt: skip
def test_a_duckdb_file_that_is_no_pool_is_refused(tmp_path, statement):
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement or "CREATE TABLE t (a INTEGER)")
    for read_only in (True, False):
        with pytest.raises(DataError) as caught:
            Pool.open(path, read_only)
        assert str(caught.value) == f"{path}: a DuckDB file, but not a datacomp pool"


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\0" * 4096, os.urandom(9000)])
def test_a_file_that_is_not_duckdb_is_refused_without_harm(tmp_path, content):
    path = tmp_path / "blocks.duckdb"
    path.write_bytes(content)
    for read_only in (True, False):
        with pytest.raises(DataError) as caught:
            Pool.open(path, read_only)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
