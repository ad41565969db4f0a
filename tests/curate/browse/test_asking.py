import pytest
from datacomp.curate.browse.asking import CELL, ROWS, ask
from datacomp.errors import StorageError, UsageError
from datacomp.pools import Pool


@pytest.fixture
def asked(pool_of):
    pool = pool_of(text=["a", "b"], width=[3, 4])
    pool.close()
    with Pool.open(pool.path, read_only=True, confined=True, memory_limit="200MB") as confined:
        yield lambda statement: ask(confined, statement)


def test_an_answer_keeps_names_order_and_kinds(asked):
    answer = asked(
        "SELECT uid, text, width, width AS text, 1.5::DOUBLE AS d, 'nan'::FLOAT, NULL AS n, "
        "[1, 2] AS l, '\\x00'::BLOB AS b FROM samples ORDER BY width DESC; ; -- é; done"
    )
    assert answer.names[:5] == ["uid", "text", "width", "text", "d"]
    assert answer.rows == [
        [f"{1:032x}", "b", "4", "4", "1.5", "nan", "–", "[1, 2]", "\\x00"],
        [f"{0:032x}", "a", "3", "3", "1.5", "nan", "–", "[1, 2]", "\\x00"],
    ]
    assert answer.numbers == [False, False, True, True, True, True, False, False, False]
    assert answer.uids == [True, *[False] * 8]
    assert not answer.more


def test_no_more_than_is_shown_leaves_the_database(asked):
    answer = asked("SELECT repeat('é', 1000000) AS t FROM range(2000)")
    assert (len(answer.rows), answer.more) == (ROWS, True)
    assert {len(row[0]) for row in answer.rows} == {CELL}
    assert len(asked(f"FROM range({ROWS})").rows) == ROWS
    assert not asked(f"FROM range({ROWS})").more


def test_what_is_no_table_is_shown_too(asked):
    assert asked("EXPLAIN SELECT count(*) FROM samples").rows
    assert ["text", "VARCHAR"] in [row[:2] for row in asked("DESCRIBE samples").rows]
    assert asked("VALUES (1), (2)").rows == [["1"], ["2"]]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("", "expected one SELECT, found nothing"),
        ("SELECT 1; SELECT 2", "expected one SELECT, found SELECT, SELECT"),
        ("DELETE FROM samples", "expected one SELECT, found DELETE"),
        ("CREATE TEMP TABLE t (a INTEGER)", "expected one SELECT, found CREATE"),
        ("SET memory_limit = '1TB'", "expected one SELECT, found SET"),
        ("COPY samples TO '/tmp/x'", "expected one SELECT, found COPY"),
        ("ATTACH '/etc/passwd'", "expected one SELECT, found ATTACH"),
        ("SELECT * FROM read_text('/etc/passwd')", "Permission Error"),
        ("FROM '/etc/passwd'", "Catalog Error"),
        ("SELECT * FROM glob('/*')", "Permission Error"),
        ("FROM read_csv('https://example.org/x.csv')", "Permission Error"),
        ("SELECT nothing FROM samples", "Binder Error"),
        ("SELECT 1) UNION (SELECT 2", "Parser Error"),
        ("SELECT 'x'::INTEGER", "Conversion Error"),
        ("x" * 20_001, "SQL of more than 20,000 characters"),
        ("SELECT " + ", ".join(["1"] * 101), "101 columns; at most 100 can be shown"),
    ],
)
def test_what_cannot_be_asked_is_one_line(asked, statement, message):
    with pytest.raises(UsageError) as caught:
        asked(statement)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked("SELECT count(*) FROM samples").rows == [["2"]]


def test_memory_is_bounded(asked):
    with pytest.raises((StorageError, UsageError)):
        asked("SELECT len(list(repeat('x', 10000) || range)) FROM range(100000)")
    assert asked("SELECT 1").rows == [["1"]]
