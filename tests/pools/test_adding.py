import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from datacomp.errors import MissingError
from datacomp.pools import AddReport, Pool, staging
from datacomp.pools.sources import Record, SetAside, open_source
from datacomp.pools.sources.base import RecordSource, SqlSource
from datacomp.pools.tar import TarWriter
from datacomp.pools.uids import from_hex
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st


def test_the_first_of_a_uid_stays_and_the_others_are_listed(
    empty, tmp_path, given, record, rows, aside
):
    one = given(tmp_path / "one", record(1, "first"), record(2), record(1, "second", at=9))
    two = given(tmp_path / "two", record(2, "late", shard="u"), record(3), record(2, at=8))
    assert empty.add(one) == AddReport(f"given {tmp_path / 'one'}", added=2, duplicates=1)
    assert empty.add(two) == AddReport(f"given {tmp_path / 'two'}", added=1, duplicates=2)
    assert rows(empty, "text, source") == [("first", 1), ("t", 1), ("t", 2)]
    assert [(s["samples"], s["duplicates"]) for s in empty.info()["sources"]] == [(2, 1), (1, 2)]
    listed = [
        (1, "s", "duplicate_uid", "first: s"),
        (2, "u", "duplicate_uid", "first: source 1, s at byte 2"),
        (2, "s", "duplicate_uid", "first: source 1, s at byte 2"),
    ]
    assert aside(empty) == listed
    again = (empty.add(one), empty.add(two))
    assert [(r.added, r.unchanged, r.duplicates) for r in again] == [(0, 2, 1), (0, 1, 2)]
    assert aside(empty) == listed


def test_adding_again_brings_in_only_what_is_new(empty, tmp_path, given, record):
    first = given(tmp_path, record(1), SetAside("x", "bad", "why"))
    assert empty.add(first).to_dict() == {
        "source": f"given {tmp_path}", "added": 1, "unchanged": 0, "changed": 0, "vanished": 0,
        "duplicates": 0, "set_aside": {"bad": 1},
    }  # fmt: skip
    grown = given(tmp_path, record(1), record(2))
    assert empty.add(grown) == AddReport(f"given {tmp_path}", added=1, unchanged=1)
    assert empty.info()["set_aside"] == []
    assert len(empty.info()["sources"]) == 1


def test_changed_values_are_taken_over(empty, tmp_path, given, record, rows):
    empty.add(given(tmp_path, *(record(i, shard="a", score=0.5, tag="x") for i in range(3))))
    changed = given(
        tmp_path, record(0, shard="b", score=0.5, tag="x"), record(1, shard="a", score=1.5),
        record(2, shard="a", score=0.5, tag="x"),
    )  # fmt: skip
    assert empty.add(changed) == AddReport(f"given {tmp_path}", unchanged=1, changed=2)
    assert rows(empty, "shard, score, tag") == [("b", 0.5, "x"), ("a", 1.5, None), ("a", 0.5, "x")]
    assert empty.add(changed) == AddReport(f"given {tmp_path}", unchanged=3)


def test_a_source_changes_only_its_own_samples(empty, tmp_path, given, record, rows):
    empty.add(given(tmp_path / "one", record(1, "mine")))
    other = given(tmp_path / "two", record(1, "other"))
    empty.add(other)
    assert (empty.add(other).changed, rows(empty, "text, source")) == (0, [("mine", 1)])


def test_values_that_no_source_brought_stay(empty, tmp_path, given, record, rows):
    empty.add(given(tmp_path, record(1), record(2)))
    empty.sql("ALTER TABLE samples ADD COLUMN note VARCHAR DEFAULT 'mine'")
    empty.sql("INSERT INTO samples (uid, text) VALUES (7, 'by hand')")
    report = empty.add(given(tmp_path, record(1, width=5), record(2), record(7)))
    assert (report.changed, report.unchanged, report.duplicates) == (1, 1, 1)
    assert rows(empty, "width, note") == [(5, "mine"), (1, "mine"), (None, "mine")]


def test_what_vanished_is_kept_and_listed(empty, tmp_path, given, record, aside):
    every = given(tmp_path, *(record(i) for i in range(4)))
    empty.add(every)
    report = empty.add(given(tmp_path, record(1), record(3)))
    assert report == AddReport(f"given {tmp_path}", unchanged=2, vanished=2)
    assert empty.count() == 4
    assert aside(empty) == [
        (1, "s", "vanished", f"{0:032x}"), (1, "s at byte 2", "vanished", f"{2:032x}"),
    ]  # fmt: skip
    assert [s["set_aside"] for s in empty.info()["sources"]] == [0]
    assert empty.add(every) == AddReport(f"given {tmp_path}", unchanged=4)
    assert aside(empty) == []


def test_scores_stay_unless_caption_or_image_are_others(empty, tmp_path, given, record):
    empty.add(given(tmp_path, *(record(i, sha256="a") for i in range(4))))
    table = empty.score_table("s", "d", {"type": "FLOAT"})
    empty.write_scores(table, from_hex([f"{i:032x}" for i in range(4)]), [0.0, 1.0, 2.0, 3.0])
    empty.add(given(
        tmp_path, record(0, "new", sha256="a"), record(1, sha256="b"),
        record(2, sha256="a", width=9), record(3, sha256="a"),
    ))  # fmt: skip
    assert empty.sql(f"SELECT value FROM {table} ORDER BY value").fetchall() == [(2.0,), (3.0,)]


def test_duplicates_of_files_shards_and_urls_are_named(tmp_path, empty, picture, aside):
    photos, shards, urls = tmp_path / "photos", tmp_path / "shards", tmp_path / "urls.csv"
    photos.mkdir()
    shards.mkdir()
    image = picture(1)
    for name in ("a", "b"):
        (photos / f"{name}.png").write_bytes(image)
        (photos / f"{name}.txt").write_text("x")
    with (shards / "0.tar").open("wb") as file:
        writer = TarWriter(file)
        for key in ("k1", "k2"):
            writer.add(f"{key}.png", image)
            writer.add(f"{key}.txt", b"x" if key == "k1" else b"y")
            writer.add(f"copy-{key}.png", image)
            writer.add(f"copy-{key}.txt", b"y")
        writer.close()
    urls.write_text("url,text\nhttp://a,x\nhttp://b,x\nhttp://a,x\n")
    for kind, path in (("folder", photos), ("webdataset", shards), ("csv", urls)):
        empty.add(open_source(kind, path))
    assert aside(empty) == [
        (1, "b.png", "duplicate_uid", "first: a.png"),
        (2, "0.tar/k1", "duplicate_uid", "first: source 1, a.png"),
        (2, "0.tar/k2", "duplicate_uid", "first: 0.tar/copy-k1"),
        (2, "0.tar/copy-k2", "duplicate_uid", "first: 0.tar/copy-k1"),
        (3, "http://a", "duplicate_uid", "first: http://a"),
    ]


class Many(SqlSource):
    """A long table made in SQL; every uid stands twice."""

    kind = "many"

    def load(self, connection):
        connection.execute(
            "INSERT INTO incoming (_row, _item, uid, url, text) "
            "SELECT i, 'item ' || i, i % 150000, 'http://x/' || i, 't' FROM range(300000) r(i)"
        )


def test_a_long_table_gives_the_right_counts_at_once_and_later(tmp_path, aside):
    """Long inserts go another way in DuckDB, and once answered wrongly until it was reopened."""
    counts = "SELECT source, reason, count(*), min(item), max(detail) FROM set_aside GROUP BY ALL"
    expected = [
        (1, "duplicate_uid", 150_000, "item 150000", "first: item 99999"),
        (2, "duplicate_uid", 300_000, "item 0", "first: source 1, http://x/99999"),
    ]
    path = tmp_path / "pool.duckdb"
    with Pool.create(path, memory_limit="500MB", threads=2) as pool:
        for turn in range(2):
            one, two = pool.add(Many(tmp_path / "one")), pool.add(Many(tmp_path / "two"))
            assert (one.added, one.unchanged) == ((150_000, 0) if turn == 0 else (0, 150_000))
            assert (one.duplicates, two.duplicates) == (150_000, 300_000)
            assert sorted(pool.sql(counts).fetchall()) == expected
            assert pool.count() == pool.scalar("SELECT count(*) FROM samples WHERE source = 1")
    with Pool.open(path) as pool:
        assert sorted(pool.sql(counts).fetchall()) == expected


# -- columns of strangers ------------------------------------------------------------------------


def test_batches_do_not_change_what_is_added(tmp_path, monkeypatch, given, record, rows, aside):
    values = [1, 0.5, True, "x", 10**30]
    items = [
        SetAside(str(i), "odd") if i % 7 == 3
        else record(i // 2, at=i, n=i, m=values[i % 2], b=values[i % 3], s=values[i % 5])
        for i in range(50)
    ]  # fmt: skip
    found = []
    for size, characters in ((1, 1 << 25), (8, 1 << 25), (1000, 1 << 25), (1000, 10)):
        monkeypatch.setattr(staging, "BATCH", size)
        monkeypatch.setattr(staging, "BATCH_CHARACTERS", characters)
        with Pool.create(tmp_path / f"{size}-{characters}.duckdb") as made:
            report = made.add(given(tmp_path, *items))
            found.append((report, rows(made, "*"), made.digest(), made.columns(), aside(made)))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][3] | {"n": "BIGINT", "m": "DOUBLE", "b": "VARCHAR"} == found[0][3]


def test_strange_values_become_columns_that_hold_them(empty, tmp_path, given, record, rows):
    huge = 10**400
    empty.add(given(tmp_path / "a", record(1, n=1, big=huge, b=True, s="nul\0inside")))
    assert [empty.columns()[name] for name in "nbs"] == ["BIGINT", "BOOLEAN", "VARCHAR"]
    empty.add(given(tmp_path / "b", record(2, n=0.5, big=1, b="maybe", s="x")))
    assert empty.columns()["n"] == "DOUBLE"
    empty.add(given(tmp_path / "c", record(3, n=huge, none=None), record(4, n=0.25)))
    types = empty.columns()
    assert [types[name] for name in ("n", "big", "b", "s")] == ["VARCHAR"] * 4
    assert "none" not in types
    assert rows(empty, "n, big, b, s") == [
        ("1.0", str(huge), "true", "nul\0inside"), ("0.5", "1", "maybe", "x"),
        (str(huge), None, None, None), ("0.25", None, None, None),
    ]  # fmt: skip


def test_a_stranger_cannot_make_any_number_of_columns(
    empty, tmp_path, given, record, monkeypatch, capsys
):
    monkeypatch.setattr(staging, "MAX_COLUMNS", 12)
    many = {f"c{i}": i for i in range(40)}
    empty.add(given(tmp_path, record(1, **many), record(2, c0=3)))
    assert list(empty.columns())[10:] == ["c0", "c1"]
    assert capsys.readouterr().err == (
        "warning: more than 512 columns; left out: 'c2', 'c3', 'c4' and 9 more\n"
    )


def test_names_are_quoted(empty, tmp_path, given, record, rows):
    empty.add(given(tmp_path / "it's; --", record(1, select=1, order="o'r")))
    assert rows(empty, '"select", "order"') == [(1, "o'r")]


# -- whole or not at all -------------------------------------------------------------------------


def test_a_source_that_cannot_be_read_leaves_no_trace(empty, tmp_path):
    for kind in ("folder", "webdataset", "parquet", "csv", "jsonl"):
        with pytest.raises(MissingError):
            empty.add(open_source(kind, tmp_path / "none"))
    assert empty.info()["sources"] == []


def test_a_failure_in_the_middle_changes_nothing(
    empty, tmp_path, monkeypatch, given, record, rows, aside
):
    monkeypatch.setattr(staging, "BATCH", 10)
    empty.add(given(tmp_path, record(0), record(0, at=3)))
    before = rows(empty, "*"), aside(empty), empty.columns()
    breaks = [*(record(i, extra=1) for i in range(25)), RuntimeError("cable pulled")]
    with pytest.raises(RuntimeError, match="cable pulled"):
        empty.add(given(tmp_path, *breaks))
    assert (rows(empty, "*"), aside(empty), empty.columns()) == before
    assert empty.sql("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall() == []
    assert empty.add(given(tmp_path, *(record(i) for i in range(30)))).added == 29
    assert len(empty.info()["sources"]) == 1


def test_what_is_no_source_is_refused(empty):
    with pytest.raises(TypeError, match="is of no kind of source that can be added"):
        empty.add("photos")


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


# -- any history ---------------------------------------------------------------------------------

SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xyz")), max_size=7)


@settings(max_examples=10, deadline=None)
@drawn(st.lists(st.tuples(st.integers(0, 2), SAMPLES), min_size=1, max_size=4))
def test_any_history_ends_as_one_would_expect(history):
    """Each turn, one of three sources comes with some samples: (number, value)."""

    class Turn(RecordSource):
        kind = "turn"

        def records(self):
            for at, (number, value) in enumerate(turn):
                yield Record(f"{number:032x}", str(at), "t", None, None, None, extra={"v": value})

    owner, value_of = {}, {}
    with tempfile.TemporaryDirectory() as folder, Pool.create(f"{folder}/p") as pool:
        pool.sql("ALTER TABLE samples ADD COLUMN v VARCHAR")
        for which, turn in history:
            first = {}
            for at, (number, value) in enumerate(turn):
                first.setdefault(number, (str(at), value))
            expected = AddReport(f"turn {folder}/{which}")
            for number, found in first.items():
                if number not in owner:
                    expected.added += 1
                    owner[number] = which
                elif owner[number] == which:
                    expected.changed += value_of[number] != found
                    expected.unchanged += value_of[number] == found
                else:
                    continue
                value_of[number] = found
            mine = {number for number in owner if owner[number] == which}
            expected.vanished = len(mine - set(first))
            expected.duplicates = len(turn) - len(mine & set(first))
            assert pool.add(Turn(Path(folder) / str(which))) == expected
            rows = pool.sql("SELECT uid, url, v FROM samples ORDER BY uid").fetchall()
            assert rows == [(number, *value_of[number]) for number in sorted(owner)]


# -- crashes and full disks ----------------------------------------------------------------------

ADD = """
import sys
from datacomp.pools import Pool, staging
from datacomp.pools.sources import open_source
staging.BATCH = 20
print("ready", flush=True)
with Pool.open_or_create(sys.argv[1]) as opened:
    print(opened.add(open_source(sys.argv[3], sys.argv[2])))
"""

# Starts each 'pool add' as a process of its own, without importing everything anew.
ADD_AGAIN = """
import os, sys
import pyarrow.parquet
from datacomp.pools import Pool, staging
from datacomp.pools.sources import open_source
staging.BATCH = 20
for line in sys.stdin:
    pool, place, kind = line.split()
    child = os.fork()
    if not child:
        with Pool.open_or_create(pool) as opened:
            opened.add(open_source(kind, place))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
POINTS = 20


@pytest.fixture
def photos(tmp_path, picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(160):
        (folder / f"{i:04d}.png").write_bytes(picture(i % 150, width=8, height=8))
        (folder / f"{i:04d}.txt").write_text("x" if i % 10 else "\0" * 2_000_000 * (i == 0))
    (folder / "broken.png").write_bytes(b"x")
    return folder


def state(path):
    with Pool.open(path) as opened:
        sources = opened._rows("SELECT * EXCLUDE (added) FROM sources")
        listed = opened.sql("SELECT * FROM set_aside ORDER BY ALL").fetchall()
        return opened.digest(), opened.count(), sources, listed


@pytest.fixture
def metadata(tmp_path, commonpool):
    return commonpool(tmp_path / "metadata", files=3, rows=10_000, features=())


@pytest.fixture
def started():
    """Return a way to start 'pool add' in a process of its own: its id, and its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", ADD_AGAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:

        def started(pool, place, kind, wait=None):
            print(pool, place, kind, file=starter.stdin, flush=True)
            process = int(starter.stdout.readline())
            if wait is not None:
                time.sleep(wait)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            return int(starter.stdout.readline())

        yield started
        starter.stdin.close()


@pytest.mark.parametrize(
    ("kind", "files", "count"), [("folder", "photos", 150), ("commonpool", "metadata", 30_000)]
)
def test_killed_at_any_point_a_rerun_ends_the_same(tmp_path, request, kind, files, count, started):
    place = request.getfixturevalue(files)
    whole, killed = tmp_path / "whole.duckdb", tmp_path / "killed.duckdb"
    assert started(tmp_path / "first.duckdb", place, kind) == 0  # warms the caches
    began = time.monotonic()
    assert started(whole, place, kind) == 0
    took = time.monotonic() - began
    chance = random.Random(0)
    died = 0
    for _ in range(POINTS):
        code = started(killed, place, kind, wait=chance.uniform(0.02, 0.95) * took)
        assert code in (0, -signal.SIGKILL)
        died += code != 0
        if killed.exists():
            with Pool.open(killed, read_only=True) as opened:
                found = opened.count()
            assert found in (0, count)  # it opens, with all or nothing
            if found:
                killed.unlink()
                killed.with_name("killed.duckdb.wal").unlink(missing_ok=True)
    assert died >= POINTS // 2
    assert started(killed, place, kind) == 0
    assert state(killed) == state(whole)
    left = {path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"}
    assert left == set()


def test_killed_while_it_merges_a_rerun_ends_the_same(tmp_path, commonpool, started):
    place = commonpool(tmp_path / "metadata", files=2, rows=10_000, features=())
    start, whole, killed = (tmp_path / f"{name}.duckdb" for name in ("start", "whole", "killed"))
    assert started(start, place, "commonpool") == 0
    # The first file has other captions, the second has gone, a third has come.
    commonpool(place, files=1, rows=10_000, features=(), text=["new"] * 10_000)
    (place / "01ab.parquet").unlink()
    commonpool(tmp_path / "more", files=1, rows=10_000, first=20_000, features=())
    (tmp_path / "more" / "00ab.parquet").rename(place / "02ab.parquet")

    def again():
        killed.with_name("killed.duckdb.wal").unlink(missing_ok=True)
        shutil.copy(start, killed)

    shutil.copy(start, whole)
    began = time.monotonic()
    assert started(whole, place, "commonpool") == 0
    took = time.monotonic() - began
    chance, died = random.Random(0), 0
    again()
    while died < 4:
        code = started(killed, place, "commonpool", wait=chance.uniform(0.2, 0.95) * took)
        assert code in (0, -signal.SIGKILL)
        died += code != 0
        took *= 1 if code else 0.7  # where much else goes on, the first one takes longer
        with Pool.open(killed, read_only=True) as opened:
            found = opened.row("SELECT count(*), count(*) FILTER (text = 'new') FROM samples")
        assert found in ((20_000, 0), (30_000, 10_000))  # it opens, with all or nothing
        if found[1]:
            again()
    assert started(killed, place, "commonpool") == 0
    assert state(killed) == state(whole)
    with Pool.open(killed) as one, Pool.open(whole, read_only=True) as other:
        rows = "SELECT * EXCLUDE (uid) FROM samples ORDER BY uid"
        assert one.table(rows).equals(other.table(rows))


@pytest.mark.parametrize(
    ("kind", "files", "count"), [("folder", "photos", 150), ("commonpool", "metadata", 30_000)]
)
def test_two_processes_that_add_at_once_end_with_the_samples_of_both_or_are_told(
    tmp_path, request, kind, files, count
):
    place = request.getfixturevalue(files)
    path = tmp_path / "pool.duckdb"
    body = ADD.replace('print("ready", flush=True)', 'print("ready", flush=True)\ninput()')
    pair = [
        subprocess.Popen([sys.executable, "-c", body, str(path), str(place), kind],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
        for _ in range(2)
    ]  # fmt: skip
    for one in pair:
        assert one.stdout.readline() == "ready\n"
    for one in pair:
        one.stdin.write("\n")
        one.stdin.flush()
    told = [one.communicate(timeout=60) for one in pair]
    failed = [(one, err) for one, (_, err) in zip(pair, told, strict=True) if one.returncode]
    assert len(failed) <= 1
    for one, err in failed:
        (other,) = (process.pid for process in pair if process is not one)
        last = err.strip().splitlines()[-1]
        assert last == (
            f"datacomp.errors.HeldError: {path}: held by process {other}; wait for it or stop it"
        )
    with Pool.open(path) as opened:
        assert opened.count() == count


@pytest.mark.parametrize(
    ("kind", "files", "count"), [("folder", "photos", 150), ("commonpool", "metadata", 30_000)]
)
def test_a_full_disk_is_one_line_and_the_pool_still_opens(tmp_path, request, kind, files, count):
    place = request.getfixturevalue(files)
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    limit = 20_000
    body = (
        "from datacomp.errors import StorageError\nimport sys\ntry:\n"
        + "".join(f"    {line}\n" for line in ADD.splitlines())
        + "except StorageError as error:\n    print(error)\n    sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", body, str(path), str(place), kind],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.stdout == (
        f"ready\n{path}: the disk is full; free some space and run the same command again\n"
    ), done.stderr
    assert done.returncode == 7
    with Pool.open(path) as opened:
        assert opened.count() == 0
        assert opened.add(open_source(kind, place)).added == count
