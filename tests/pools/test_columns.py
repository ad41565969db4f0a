import duckdb
import pytest
from datacomp.pools import columns


def test_names_and_texts_are_quoted():
    assert columns.quote('a"b') == '"a""b"'
    assert columns.literal("it's") == "'it''s'"


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b FLOAT, url VARCHAR)")
        yield connection


def test_a_column_of_any_name_is_added(connection):
    name = 'x" INTEGER); DROP TABLE t; --'
    assert columns.add_columns(connection, "t", {name: "INTEGER"}) == {name: "INTEGER"}
    assert columns.columns_of(connection, "t") == {
        "a": "INTEGER", "b": "FLOAT", "url": "VARCHAR", name: "INTEGER",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("known", "incoming", "wide"),
    [("a", "BIGINT", "BIGINT"), ("a", "TINYINT", "INTEGER"), ("a", "FLOAT", "DOUBLE"),
     ("b", "DOUBLE", "DOUBLE"), ("a", "BOOLEAN", "VARCHAR"), ("url", "INTEGER", "VARCHAR")],
)  # fmt: skip
def test_columns_are_widened_to_hold_both(connection, known, incoming, wide):
    assert columns.add_columns(connection, "t", {known: incoming}) == {known: wide}
    assert columns.columns_of(connection, "t")[known] == wide


def test_columns_beyond_the_most_are_left_out_with_one_warning(connection, monkeypatch, capsys):
    monkeypatch.setattr(columns, "MAX_COLUMNS", 4)
    wanted = dict.fromkeys(("a", "c", "d", "e", "f", "g", "b"), "INTEGER")
    assert list(columns.add_columns(connection, "t", wanted)) == ["a", "c", "b"]
    assert capsys.readouterr().err == (
        "warning: more than 4 columns; left out: 'd', 'e', 'f' and 1 more\n"
    )
