import resource
import signal
import subprocess
import sys
import time

import duckdb
import pytest
from datacomp.errors import DataError, MissingError, StorageError, UsageError
from datacomp.pools import AddReport, Pool, pool
from datacomp.pools.sources import Record, SetAside, open_source
from datacomp.pools.sources.base import RecordSource
from datacomp.pools.uids import from_hex


class Given(RecordSource):
    """A source of records made by the test."""

    kind = "given"
    items = ()

    def records(self):
        yield from self.items


def record(number, text="t", at=None, **extra):
    at = number % 1000 if at is None else at
    return Record(f"{number:032x}", None, text, 1, 2, None, "s", at, 1, extra)


def given(tmp_path, *items):
    source = Given(tmp_path)
    object.__setattr__(source, "items", items)
    return source


@pytest.fixture
def empty(tmp_path):
    with Pool.create(tmp_path / "pool.duckdb") as made:
        yield made


def rows(pool, what):
    return pool.sql(f"SELECT {what} FROM samples ORDER BY uid").fetchall()


# -- opening -------------------------------------------------------------------------------------


def test_a_pool_is_made_once_and_opened_again(tmp_path):
    path = tmp_path / "new" / "pool.duckdb"
    Pool.create(path).close()
    assert [p.name for p in path.parent.iterdir()] == ["pool.duckdb"]
    with pytest.raises(UsageError) as caught:
        Pool.create(path)
    assert (
        str(caught.value) == f"{path} exists already; add to it with 'datacomp pool add {path} ...'"
    )
    with Pool.open_or_create(path) as again:
        assert again.count() == 0
    with Pool.open_or_create(tmp_path / "other") as other:
        assert other.path == tmp_path / "other"
    none = tmp_path / "none"
    with pytest.raises(MissingError) as caught:
        Pool.open(none)
    assert str(caught.value) == (
        f"{none}: no such pool; make one with 'datacomp pool create {none}'"
    )


def test_a_pool_half_made_is_made_anew(tmp_path):
    (tmp_path / ".pool.duckdb.partial").write_bytes(b"half")
    with Pool.create(tmp_path / "pool.duckdb") as made:
        assert made.count() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["pool.duckdb"]


def test_read_only_is_read_only(empty):
    empty.close()
    with (
        Pool.open(empty.path, read_only=True) as opened,
        pytest.raises(DataError, match="read-only"),
    ):
        opened.sql("DELETE FROM samples")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_pool_held_by_another_process_names_it(tmp_path, read_only):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    body = (
        f"import duckdb, time; held = duckdb.connect({str(path)!r}); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.PIPE) as holder:
        try:
            holder.stdout.readline()
            with pytest.raises(StorageError) as caught:
                Pool.open(path, read_only)
        finally:
            holder.kill()
    assert str(caught.value) == f"{path}: held by process {holder.pid}; wait for it or stop it"


# -- adding --------------------------------------------------------------------------------------


def test_the_first_of_a_uid_wins_and_the_others_are_counted(empty, tmp_path):
    one = given(tmp_path / "one", record(1, "first"), record(2), record(1, "second", at=9))
    two = given(tmp_path / "two", record(2, "late"), record(3))
    assert empty.add(one) == AddReport(f"given {tmp_path / 'one'}", 2, 0, 1)
    assert empty.add(two) == AddReport(f"given {tmp_path / 'two'}", 1, 0, 1)
    assert rows(empty, "text, source") == [("first", 1), ("t", 1), ("t", 2)]
    assert [(s["samples"], s["duplicates"]) for s in empty.info()["sources"]] == [(2, 1), (1, 1)]


def test_adding_again_brings_in_only_what_is_new(empty, tmp_path):
    first = given(tmp_path, record(1), SetAside("x", "bad", "why"))
    assert empty.add(first).to_dict() == {
        "source": f"given {tmp_path}", "added": 1, "unchanged": 0, "duplicates": 0,
        "set_aside": {"bad": 1},
    }  # fmt: skip
    grown = given(tmp_path, record(1), record(2))
    assert empty.add(grown) == AddReport(f"given {tmp_path}", 1, 1, 0)
    assert empty.info()["set_aside"] == []
    assert len(empty.info()["sources"]) == 1


def test_batches_do_not_change_what_is_added(tmp_path, monkeypatch):
    items = [
        SetAside(str(i), "odd") if i % 7 == 3 else record(i // 2, at=i, n=i) for i in range(50)
    ]
    found = []
    for size in (1, 8, 1000):
        monkeypatch.setattr(pool, "BATCH", size)
        with Pool.create(tmp_path / f"{size}.duckdb") as made:
            report = made.add(given(tmp_path, *items))
            found.append((report, rows(made, "*"), made.digest()))
    assert found[0] == found[1] == found[2]


def test_strange_values_become_columns_that_hold_them(empty, tmp_path):
    huge = 10**400
    empty.add(given(tmp_path / "a", record(1, n=1, big=huge, b=True, s="nul\0inside")))
    empty.add(given(tmp_path / "b", record(2, n=0.5, big=1, b="maybe", s="x")))
    empty.add(given(tmp_path / "c", record(3, n=huge), record(4, n=0.25)))
    types = empty.columns()
    assert [types[name] for name in ("n", "big", "b", "s")] == ["VARCHAR"] * 4
    assert rows(empty, "n, big, b, s") == [
        ("1.0", str(huge), "true", "nul\0inside"), ("0.5", "1", "maybe", "x"),
        (str(huge), None, None, None), ("0.25", None, None, None),
    ]  # fmt: skip


def test_a_stranger_cannot_make_any_number_of_columns(empty, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "MAX_COLUMNS", 12)
    empty.add(given(tmp_path, record(1, a=1, b=2, c=3, d=4)))
    assert list(empty.columns())[10:] == ["a", "b"]
    assert capsys.readouterr().err == (
        "warning: more than 12 columns; 'c' is left out\n"
        "warning: more than 12 columns; 'd' is left out\n"
    )


def test_names_are_quoted(empty, tmp_path):
    empty.add(given(tmp_path / "it's; --", record(1, select=1, order="o'r")))
    assert rows(empty, '"select", "order"') == [(1, "o'r")]
    assert pool.quote('a"b') == '"a""b"'
    assert pool.literal("it's") == "'it''s'"
    names = {'x" INTEGER); DROP TABLE samples; --': "INTEGER"}
    pool.add_columns(empty.connection, "samples", empty.columns(), names)
    assert next(iter(names)) in empty.columns()


def test_a_source_that_cannot_be_read_leaves_no_trace(empty, tmp_path):
    for kind in ("folder", "webdataset", "parquet", "csv"):
        with pytest.raises(MissingError):
            empty.add(open_source(kind, tmp_path / "none"))
    assert empty.info()["sources"] == []


def test_a_failure_in_the_middle_keeps_whole_batches_and_can_go_on(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "BATCH", 10)

    class Breaks(Given):
        def records(self):
            yield from self.items
            raise RuntimeError("cable pulled")

    source = Breaks(tmp_path)
    object.__setattr__(source, "items", [record(i) for i in range(25)])
    with pytest.raises(RuntimeError, match="cable pulled"):
        empty.add(source)
    assert empty.count() == 20
    assert empty.add(given(tmp_path, *(record(i) for i in range(30)))).added == 10
    assert len(empty.info()["sources"]) == 1


def test_sources_move_with_their_pool(tmp_path, picture):
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "a.png").write_bytes(picture(1))
    (home / "photos" / "a.txt").write_text("a")
    with Pool.create(home / "pool.duckdb") as made:
        made.add(open_source("folder", home / "photos"))
    home.rename(tmp_path / "away")
    with Pool.open(tmp_path / "away" / "pool.duckdb") as moved:
        assert moved.source_paths() == {1: tmp_path / "away" / "photos"}
        assert moved.add(open_source("folder", tmp_path / "away" / "photos")).unchanged == 1


# -- asking --------------------------------------------------------------------------------------


def test_uids_and_digest_do_not_depend_on_order(tmp_path):
    big = (1 << 128) - 1
    numbers = [7, big, 1 << 64, 3, (1 << 64) - 1]
    found = []
    for name, order in (("a", numbers), ("b", numbers[::-1])):
        with Pool.create(tmp_path / name) as made:
            made.add(given(tmp_path, *map(record, order)))
            found.append((made.uids().tolist(), made.digest()))
            assert made.uids("uid > 100").tolist() == made.uids().tolist()[2:]
    assert found[0] == found[1]
    assert found[0][0] == from_hex([f"{n:032x}" for n in sorted(numbers)]).tolist()


def test_wrong_sql_is_one_line(empty):
    for ask in (empty.sql, empty.table, empty.scalar):
        with pytest.raises(DataError) as caught:
            ask("SELECT nonsense FROM samples")
        assert str(caught.value).startswith(f"{empty.path}: Binder Error: ")
        assert "\n" not in str(caught.value)


def test_a_variable_is_never_taken_for_a_table(empty):
    samples_of_mine = empty.table("SELECT 1 AS a")
    assert len(samples_of_mine) == 1
    with pytest.raises(DataError, match="Table with name samples_of_mine does not exist"):
        empty.sql("FROM samples_of_mine")


# -- scores --------------------------------------------------------------------------------------


def test_scores_are_catalogued_by_name_and_digest(empty):
    uids = from_hex(["0" * 31 + "1", "f" * 32])
    table = empty.score_table("s", "d1", {"type": "FLOAT", "model": "m"})
    empty.write_scores(table, uids, [0.5, None])
    assert empty.score_table("s", "d1", {"type": "FLOAT"}) == table
    other = empty.score_table("s", "d2", {"type": "VARCHAR"})
    assert other != table
    assert empty.sql(f"SELECT uid, value FROM {table} ORDER BY uid").fetchall() == [
        (1, 0.5), ((1 << 128) - 1, None),
    ]  # fmt: skip
    assert [(s["name"], s["digest"]) for s in empty.info()["scores"]] == [("s", "d1"), ("s", "d2")]


def test_scores_that_do_not_fit_change_nothing(empty):
    table = empty.score_table("s", "d", {"type": "FLOAT"})
    with pytest.raises(DataError, match="Could not convert string"):
        empty.write_scores(table, from_hex(["0" * 32]), ["abc"])
    assert empty.scalar(f"SELECT count(*) FROM {table}") == 0
    empty.write_scores(table, from_hex(["0" * 32]), [1])


# -- a stranger's question -----------------------------------------------------------------------


@pytest.fixture
def asked(empty, tmp_path):
    """A pool on the disk, ready to be asked."""
    empty.add(given(tmp_path, record(1, "one"), record(2, "two")))
    empty.close()
    return empty.path


@pytest.mark.parametrize(
    "statement", ["SELECT text FROM samples ORDER BY uid", "FROM samples SELECT text ORDER BY uid;",
                  "WITH a AS (FROM samples) SELECT text FROM a ORDER BY uid -- done"],
)  # fmt: skip
def test_a_question_is_answered(asked, statement):
    with pool.query(asked, statement) as cursor:
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
        ("EXPLAIN ANALYZE COPY samples TO '{out}'", "file system operations are disabled"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nothing FROM samples", "Binder Error"),
    ],
)
def test_a_question_can_do_no_harm(asked, tmp_path, statement, found):
    before = asked.read_bytes()
    out = tmp_path / "out"
    with pytest.raises(UsageError) as caught:
        pool.query(asked, statement.format(out=out))
    message = str(caught.value)
    assert message.startswith(f"{asked}: ")
    assert found in message
    assert "\n" not in message
    assert not out.exists()
    assert asked.read_bytes() == before
    Pool.open(asked).close()  # nothing holds it any more


def test_there_must_be_a_pool_to_ask(tmp_path):
    with pytest.raises(MissingError, match="no such pool"):
        pool.query(tmp_path / "none", "SELECT 1")
    (tmp_path / "text").write_text("no database")
    with pytest.raises(DataError) as caught:
        pool.query(tmp_path / "text", "SELECT 1")
    assert str(caught.value) == f"{tmp_path / 'text'}: not a datacomp pool (no DuckDB file)"


# -- crashes and full disks ----------------------------------------------------------------------

ADD = """
import sys
from datacomp.pools import Pool, pool
from datacomp.pools.sources import open_source
pool.BATCH = 20
print("ready", flush=True)
with Pool.open_or_create(sys.argv[1]) as opened:
    print(opened.add(open_source("folder", sys.argv[2])))
"""


@pytest.fixture
def photos(tmp_path, picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(400):
        (folder / f"{i:04d}.png").write_bytes(picture(i % 390, width=8, height=8))
        (folder / f"{i:04d}.txt").write_text("x" if i % 10 else "\0" * 2_000_000 * (i == 0))
    (folder / "broken.png").write_bytes(b"x")
    return folder


def state(path):
    with Pool.open(path) as opened:
        sources = opened._rows("SELECT * EXCLUDE (added) FROM sources")
        return opened.digest(), opened.count(), sources, opened.info()["set_aside"]


def test_killed_at_any_point_a_rerun_ends_the_same(tmp_path, photos):
    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", ADD, str(path), str(photos)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdout.readline()
        return process, time.monotonic()

    whole, began = start(tmp_path / "whole.duckdb")
    _, err = whole.communicate(timeout=60)
    assert whole.returncode == 0, err
    took = time.monotonic() - began
    killed = tmp_path / "killed.duckdb"
    interrupted = 0
    for part in (0.5, 0.7, 0.9):
        process, _ = start(killed)
        time.sleep(took * part)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        if killed.exists():
            with Pool.open(killed, read_only=True) as opened:
                assert opened.count() <= 390  # it opens, with what was committed
    assert interrupted >= 1
    process, _ = start(killed)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert state(killed) == state(tmp_path / "whole.duckdb")


def test_a_full_disk_is_one_line_and_the_pool_still_opens(tmp_path, photos):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    limit = 20_000
    body = (
        "from datacomp.errors import StorageError\nimport sys\ntry:\n"
        + "".join(f"    {line}\n" for line in ADD.splitlines())
        + "except StorageError as error:\n    print(error)\n    sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", body, str(path), str(photos)],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.stdout == (
        f"ready\n{path}: the disk is full; free some space and run the same command again\n"
    ), done.stderr
    assert done.returncode == 7
    with Pool.open(path) as opened:
        left = opened.count()
        report = opened.add(open_source("folder", photos))
        assert report.added + left == opened.count() == 390
