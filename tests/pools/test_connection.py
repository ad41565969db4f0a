import os
import signal
import subprocess
import sys
import threading

import pytest
from datacomp.errors import HeldError, StorageError, UsageError
from datacomp.pools import Pool
from datacomp.pools.asking import query
from datacomp.pools.connection import patience


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


def test_long_work_waits_for_who_takes_a_look(tmp_path, capsys):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    body = f"import duckdb; held = duckdb.connect({str(path)!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with patience(0.5), pytest.raises(HeldError):
            Pool.open(path)
        ending = threading.Timer(1, holder.communicate, [b"\n"])
        ending.start()
        with patience(), Pool.open(path) as opened:
            assert opened.count() == 0
        ending.join()
    said = f"{path}: held by process {holder.pid}; wait for it or stop it; waiting for it, "
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {said}0.5 s at most", f"warning: {said}60 s at most",
    ]  # fmt: skip


def test_readers_do_not_hold_each_other_up(tmp_path):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    body = (
        f"from datacomp.pools import Pool; held = Pool.open({str(path)!r}, True); "
        "print(held.count(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        try:
            assert reader.stdout.readline() == b"0\n"
            with Pool.open(path, read_only=True) as opened:
                assert opened.count() == 0
            with pytest.raises(StorageError, match=f"held by process {reader.pid}; "):
                Pool.open(path)
        finally:
            reader.kill()


def test_one_process_cannot_open_a_pool_in_two_ways(tmp_path):
    path = tmp_path / "pool.duckdb"
    with Pool.create(path), pytest.raises(StorageError) as caught:
        query(path, "SELECT 1")
    assert str(caught.value) == f"{path}: this process holds it open already"


def test_two_questions_of_one_process_are_both_confined(tmp_path):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    with query(path, "SELECT 1"), query(path, "SELECT 2") as second:
        assert second.fetchall() == [(2,)]
        with pytest.raises(UsageError, match="file system operations are disabled"):
            query(path, "FROM glob('/*')")


# -- memory --------------------------------------------------------------------------------------


def settings(pool):
    names = ("memory_limit", "threads", "temp_directory")
    return [pool.scalar(f"SELECT current_setting('{name}')") for name in names]


def test_memory_and_threads_are_settings(tmp_path, monkeypatch):
    path = tmp_path / "pool.duckdb"
    beside = f"{path}.tmp"
    with Pool.create(path, memory_limit="1GiB", threads=1) as pool:
        assert settings(pool) == ["1.0 GiB", 1, beside]
    with Pool.open(path, True, memory_limit="512 MiB") as pool:
        assert settings(pool)[0] == "512.0 MiB"
    monkeypatch.setenv("DATACOMP_MEMORY", "256MiB")
    with Pool.open_or_create(path) as pool:
        assert settings(pool)[0] == "256.0 MiB"
    with Pool.open_or_create(path, memory_limit="128MiB", threads=2) as pool:
        assert settings(pool) == ["128.0 MiB", 2, beside]
    monkeypatch.delenv("DATACOMP_MEMORY")
    with Pool.open(path, memory_limit="50%") as half, Pool.open(path) as same:
        assert settings(half) == settings(same)


@pytest.mark.parametrize("size", ["", "2", "GB", "-1GB", "0GB", "0%", "2 parsecs", "1e3MB"])
def test_a_wrong_size_is_one_clear_line(tmp_path, monkeypatch, size):
    path = tmp_path / "pool.duckdb"
    with pytest.raises(UsageError) as caught:
        Pool.create(path, memory_limit=size)
    assert str(caught.value) == (
        f"the memory limit is {size!r}, expected a size such as 2GB or a share such as 25%"
    )
    assert not path.exists()
    with pytest.raises(UsageError, match=r"^threads is 0, expected at least 1$"):
        Pool.create(path, threads=0)


def test_a_wrong_size_in_the_environment_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DATACOMP_MEMORY", "much")
    with pytest.raises(UsageError) as caught:
        Pool.create(tmp_path / "pool.duckdb")
    assert str(caught.value) == (
        "DATACOMP_MEMORY is 'much', expected a size such as 2GB or a share such as 25%"
    )


SPILL = """
import os, signal, sys
from datacomp.pools import Pool
pool = Pool.open(sys.argv[1], memory_limit="60MB", threads=1)
pool.sql("CREATE TEMP TABLE t AS SELECT hash(i)::VARCHAR || hash(-i) AS a FROM range(3000000) r(i) "
         "ORDER BY a")
print(len(os.listdir(sys.argv[1] + ".tmp")), flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
pool.close()
"""


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_what_does_not_fit_goes_beside_the_pool_and_is_cleaned_up(tmp_path, ending):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    done = subprocess.run(
        [sys.executable, "-c", SPILL, str(path), ending], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (0 if ending == "close" else -signal.SIGKILL), done.stderr
    assert int(done.stdout) > 0
    assert path.with_name("pool.duckdb.tmp").exists() == (ending == "kill")
    Pool.open(path).close()
    assert os.listdir(tmp_path) == ["pool.duckdb"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    path = tmp_path / "pool.duckdb"
    Pool.create(path).close()
    other = tmp_path / "pool.duckdb.tmp" / "mine.txt"
    other.parent.mkdir()
    other.write_text("mine")
    Pool.open(path).close()
    assert other.read_text() == "mine"
