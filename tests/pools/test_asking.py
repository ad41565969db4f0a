import duckdb
import pytest
from datacomp.errors import DataError, MissingError, StorageError, UsageError
from datacomp.pools import Pool
from datacomp.pools.asking import query, question_errors


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A pool on the disk, ready to be asked."""
    path = tmp_path_factory.mktemp("asked") / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.sql("INSERT INTO samples (uid, text) VALUES (1, 'one'), (2, 'two')")
    return path


@pytest.mark.parametrize(
    "statement", ["SELECT text FROM samples ORDER BY uid", "FROM samples SELECT text ORDER BY uid;",
                  "WITH a AS (FROM samples) SELECT text FROM a ORDER BY uid -- done"],
)  # fmt: skip
def test_a_question_is_answered(asked, statement):
    with query(asked, statement) as cursor:
        assert cursor.fetchall() == [("one",), ("two",)]
    with pytest.raises(duckdb.Error, match="closed"):
        cursor.execute("SELECT 1")
    Pool.open(asked).close()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("", "expected one SELECT, found nothing"),
        ("SELECT 1; SELECT 2", "expected one SELECT, found SELECT, SELECT"),
        ("SELECT 1; DROP TABLE samples", "expected one SELECT, found SELECT, DROP"),
        ("DELETE FROM samples", "expected one SELECT, found DELETE"),
        ("CREATE TEMP TABLE a AS SELECT 1", "expected one SELECT, found CREATE"),
        ("COPY samples TO '{out}'", "expected one SELECT, found COPY"),
        ("EXPORT DATABASE '{out}'", "expected one SELECT, found EXPORT"),
        ("ATTACH '{out}'", "expected one SELECT, found ATTACH"),
        ("INSTALL httpfs", "expected one SELECT, found LOAD"),
        ("SET enable_external_access = true", "expected one SELECT, found SET"),
        ("PRAGMA database_list", "expected one SELECT, found PRAGMA"),
        ("CHECKPOINT", "expected one SELECT, found CALL"),
        ("SELECT * FROM read_csv('/etc/passwd')", "file system operations are disabled"),
        ("SELECT * FROM read_text('/etc/passwd')", "file system operations are disabled"),
        ("SELECT * FROM glob('/*')", "file system operations are disabled"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_parquet('http://localhost:1/a.parquet')", ""),
        ("SELECT * FROM path", "Table with name path does not exist"),
        ("EXPLAIN ANALYZE COPY samples TO '{out}'", "found EXPLAIN of something else"),
        ("/* a */ EXPLAIN ANALYZE (FORMAT json) DELETE FROM samples", "found EXPLAIN of something"),
        ("WITH a AS (COPY samples TO '{out}') SELECT 1", "expected one SELECT, found COPY in it"),
        ("EXPLAIN ANALYZE WITH a AS (COPY samples TO '{out}') SELECT 1", "found COPY in it"),
        ("SELECT (WITH a AS (DELETE FROM samples RETURNING uid) FROM a)", "found DELETE in it"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nothing FROM samples", "Binder Error"),
    ],
)
def test_a_question_can_do_no_harm(asked, tmp_path, statement, found):
    before = asked.read_bytes()
    out = tmp_path / "out"
    with pytest.raises(UsageError) as caught:
        query(asked, statement.format(out=out))
    message = str(caught.value)
    assert message.startswith(f"{asked}: ")
    assert found in message
    assert "\n" not in message
    assert not out.exists()
    assert asked.read_bytes() == before
    Pool.open(asked).close()  # nothing holds it any more


@pytest.mark.parametrize(
    "statement", ["EXPLAIN ANALYZE {copy}", "WITH a AS ({copy}) SELECT 1",
                  "EXPLAIN ANALYZE WITH a AS ({copy}) SELECT 1"],
)  # fmt: skip
def test_a_question_leaves_the_files_as_they_are_that_a_pool_links_to(tmp_path, statement):
    file = tmp_path / "a.parquet"
    duckdb.sql("SELECT printf('%032x', 1) AS uid, 'a' AS url, 'b' AS text").write_parquet(str(file))
    before = file.read_bytes()
    copy = f"COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)"
    with pytest.raises(UsageError, match="expected one SELECT, found "):
        query(tmp_path, statement.format(copy=copy))
    assert file.read_bytes() == before
    with query(tmp_path, "SELECT text FROM samples") as cursor:
        assert cursor.fetchall() == [("b",)]


@pytest.mark.parametrize(
    "statement", ["EXPLAIN FROM samples",
                  "/* é */ EXPLAIN (FORMAT json) SELECT 'WITH' FROM samples;",
                  "EXPLAIN ANALYZE WITH a AS (FROM samples) FROM a -- done",
                  "PIVOT samples ON text IN ('one') USING count(*)",
                  "SELECT '\"type\":\"COPY_QUERY_NODE\"'"],
)  # fmt: skip
def test_a_question_may_be_about_a_plan(asked, statement):
    with query(asked, statement) as cursor:
        assert cursor.fetchall()


def test_there_must_be_a_pool_to_ask(tmp_path):
    with pytest.raises(MissingError, match="no such pool"):
        query(tmp_path / "none", "SELECT 1")
    (tmp_path / "text").write_text("no database")
    with pytest.raises(DataError) as caught:
        query(tmp_path / "text", "SELECT 1")
    assert str(caught.value) == (
        f"{tmp_path / 'text'}: not a datacomp pool (no DuckDB file); if it holds samples, add it "
        f"to one: datacomp pool add POOL {tmp_path / 'text'}"
    )


def test_a_question_that_needs_more_memory_than_allowed_is_one_clear_line(asked):
    statement = "SELECT list(i::VARCHAR) AS a FROM range(5000000) r(i)"
    with query(asked, "SELECT 1", memory_limit="50MB"), pytest.raises(StorageError) as caught:
        query(asked, statement, memory_limit="50MB")
    assert str(caught.value) == (
        f"{asked}: more memory is needed than allowed; allow more with --memory or "
        "DATACOMP_MEMORY, or free some disk space beside the pool"
    )


def test_errors_that_show_on_fetching_are_the_questions(asked):
    statement = "SELECT CASE WHEN i = 500000 THEN text::INT END FROM samples, range(600000) r(i)"
    cursor = query(asked, statement)
    with cursor, pytest.raises(UsageError) as caught, question_errors(asked):
        cursor.fetchall()
    assert str(caught.value).startswith(f"{asked}: Conversion Error: ")
