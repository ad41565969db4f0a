import subprocess
import sys
import time

import pytest
from datacomp.curate.browse.lending import Lender, TooSlowError
from datacomp.errors import DataError, StorageError
from datacomp.pools import Pool

FOREVER = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b"


@pytest.fixture
def path(tmp_path):
    Pool.create(tmp_path / "pool.duckdb").close()
    return tmp_path / "pool.duckdb"


def test_a_question_is_stopped_when_its_time_is_over(path):
    lender = Lender(path)
    began = time.monotonic()
    with pytest.raises(TooSlowError) as caught, lender.pool(0.3) as pool:
        pool.sql(FOREVER).fetchall()
    assert time.monotonic() - began < 10
    assert str(caught.value) == (
        "stopped after 0.3 seconds; ask for less, or start with a longer --seconds"
    )
    with lender.pool(30) as pool:  # the next one is not stopped
        assert pool.count() == 0
    lender.close()


def test_questions_run_side_by_side_and_change_nothing(path):
    lender = Lender(path)
    with lender.pool(30) as one, lender.pool(30) as other:
        one.sql("CREATE TEMP TABLE mine (a INTEGER)")
        with pytest.raises(DataError, match="mine does not exist"):
            other.sql("FROM mine")
        assert one.confined
        with pytest.raises(DataError, match="read-only"):
            other.sql("DELETE FROM samples")
    lender.close()


def test_a_pool_that_nobody_asks_is_left_to_others(path):
    lender = Lender(path, idle=0.1)
    with lender.pool(30) as pool:
        assert pool.count() == 0
        mark = lender.mark
    time.sleep(0.5)
    with Pool.open(path) as pool:
        pool.sql("INSERT INTO set_aside VALUES (1, 'i', 'r', 'd')")
    with lender.pool(30) as pool:
        assert pool.scalar("SELECT count(*) FROM set_aside") == 1
        assert lender.mark != mark
    lender.close()


def test_a_pool_that_is_written_to_says_by_whom(path):
    body = (
        f"from datacomp.pools import Pool\nwith Pool.open({str(path)!r}):\n"
        "    print('open', flush=True)\n    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stdout.readline() == "open\n"
        lender = Lender(path)
        with pytest.raises(StorageError) as caught, lender.pool(30):
            pass
        assert str(caught.value) == (
            f"{path}: held by process {process.pid}; wait for it or stop it"
        )
        process.communicate("\n", timeout=30)
    with lender.pool(30) as pool:
        assert pool.count() == 0
    lender.close()
