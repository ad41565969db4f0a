import hashlib
import os
import re
import subprocess
import sys

import pytest
from datacomp.errors import DataError, MissingError, StorageError, UsageError
from datacomp.pools import Pool, pool
from datacomp.pools.uids import UID_DTYPE, digest_of_uids, from_hex, is_sorted

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
        f"{none}: no such pool, and no folder of metadata; make a pool with "
        f"'datacomp pool create {none}'"
    )


def test_what_a_killed_maker_left_is_removed_and_what_another_makes_now_is_not(tmp_path):
    old, new = tmp_path / ".pool.duckdb.7.ab.partial", tmp_path / ".pool.duckdb.8.cd.partial"
    for partial in (old, new):
        partial.write_bytes(b"half")
    os.utime(old, (1, 1))
    with Pool.create(tmp_path / "pool.duckdb") as made:
        assert made.count() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [new.name, "pool.duckdb"]


def test_of_many_who_make_the_same_pool_one_does_and_the_others_open_it(tmp_path):
    path = tmp_path / "pool.duckdb"
    body = (
        "import sys; from datacomp.pools import Pool; from datacomp.errors import DatacompError\n"
        "print('ready', flush=True); input()\n"
        "try:\n"
        f"    with Pool.open_or_create({str(path)!r}) as pool: print(pool.count())\n"
        "except DatacompError as error: print(error)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    makers = [subprocess.Popen([sys.executable, "-c", body], **pipes) for _ in range(4)]
    for maker in makers:
        assert maker.stdout.readline() == b"ready\n"
    for maker in makers:
        maker.stdin.write(b"\n")
        maker.stdin.flush()
    said = [maker.communicate() for maker in makers]
    assert [err for _, err in said] == [b""] * 4
    held = re.compile(rf"{re.escape(str(path))}: held by process \d+; wait for it or stop it\n")
    answers = [out.decode() for out, _ in said]
    assert all(out == "0\n" or held.fullmatch(out) for out in answers)
    assert "0\n" in answers
    assert [p.name for p in tmp_path.iterdir()] == ["pool.duckdb"]


def test_a_pool_that_came_to_nothing_is_withdrawn_unless_something_was_added(
    tmp_path, given, record
):
    path = tmp_path / "pool.duckdb"
    Pool.open_or_create(path).withdraw()
    assert not path.exists()
    opened = Pool.open_or_create(path)
    opened.add(given(tmp_path, record(1)))
    opened.withdraw()
    with Pool.open(path) as again:
        assert again.count() == 1
    other = tmp_path / "other"
    Pool.create(other).close()
    Pool.open_or_create(other).withdraw()
    assert other.exists()


def test_a_folder_that_is_opened_meanwhile_tells_when_it_is_asked_for(tmp_path, commonpool, capsys):
    folder = commonpool(tmp_path / "metadata")
    (folder / "README.md").touch()
    asked, _ = Pool.opening(folder), Pool.opening(folder)  # one of them is not asked for
    (tmp_path / "empty").mkdir()
    failed = Pool.opening(tmp_path / "empty")
    with pytest.raises(DataError, match="empty: no metadata found"):
        failed()
    assert capsys.readouterr().err == ""
    with asked() as opened:
        assert opened.count() == 10
    assert capsys.readouterr().err == (
        f"warning: {folder}: ignored what is no metadata: README.md\n"
    )


@pytest.mark.parametrize("ask", ["sql", "table", "scalar"])
def test_ctrl_c_in_a_query_is_an_interrupt(tmp_path, ask):
    path = tmp_path / "pool.duckdb"
    body = (
        "import os, signal, threading; from datacomp.pools import Pool\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"pool = Pool.create({str(path)!r})\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"try: pool.{ask}('SELECT count(*) FROM range(1000000000000) r(i) WHERE hash(i) = 7')\n"
        "except KeyboardInterrupt: print('interrupted', flush=True); os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"interrupted\n", b"")


def test_read_only_is_read_only(empty):
    empty.close()
    with (
        Pool.open(empty.path, read_only=True) as opened,
        pytest.raises(DataError, match="read-only"),
    ):
        opened.sql("DELETE FROM samples")


# -- asking --------------------------------------------------------------------------------------


def test_uids_and_digest_do_not_depend_on_order(tmp_path, given, record):
    big = (1 << 128) - 1
    numbers = [7, big, 1 << 64, 3, (1 << 64) - 1]
    found = []
    for name, order in (("a", numbers), ("b", numbers[::-1])):
        with Pool.create(tmp_path / name) as made:
            made.add(given(tmp_path, *map(record, order)))
            found.append((made.uids().tolist(), made.digest()))
            assert made.uids("uid > 100").tolist() == made.uids().tolist()[2:]
    assert found[0] == found[1]
    assert found[0][1] == digest_of_uids(from_hex([f"{n:032x}" for n in sorted(numbers)]))
    assert found[0][0] == from_hex([f"{n:032x}" for n in sorted(numbers)]).tolist()


def test_uids_and_digest_are_of_all_batches(empty, monkeypatch):
    monkeypatch.setattr(pool, "_BATCH", 2048)
    many = "SELECT (i::UHUGEINT << 64) + 10000 - i FROM range(10000) r(i)"
    empty.sql(f"INSERT INTO samples (uid) {many}")
    uids = empty.uids()
    assert (len(uids), is_sorted(uids)) == (10000, True)
    assert empty.digest() == digest_of_uids(uids)


def test_an_empty_pool_has_a_digest(empty):
    assert empty.uids().tolist() == []
    assert empty.uids().dtype == UID_DTYPE
    assert empty.digest() == hashlib.sha256(b"").hexdigest()


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


def test_a_confined_pool_reaches_nothing_else(empty):
    assert not empty.confined
    empty.close()
    with Pool.open(empty.path, read_only=True, confined=True) as opened:
        assert opened.confined
        for sql in ("FROM read_text('/etc/passwd')", "FROM glob('/*')", "COPY samples TO '/tmp/x'"):
            with pytest.raises(DataError, match="file system operations are disabled"):
                opened.sql(sql)
        with pytest.raises(DataError, match="locked"):
            opened.sql("SET enable_external_access = true")


def test_what_is_left_of_a_removed_pool_is_not_taken_for_a_new_ones(tmp_path):
    path = tmp_path / "pool.duckdb"
    log = tmp_path / "pool.duckdb.wal"
    log.write_bytes(b"x")
    for make in (Pool.create, Pool.open_or_create):
        with pytest.raises(StorageError) as caught:
            make(path)
        assert (
            str(caught.value) == f"{log}: left of a pool that is no longer there; remove it first"
        )
    assert not path.exists()
    log.unlink()
    Pool.create(path).close()
